"""The worst case: the best of all attacks and seeds on each example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness import hookimpl
from harness.errors import unknown_name
from harness.interfaces import (
    Adversarial,
    Attack,
    AttackContext,
    AttackLabel,
    Budget,
    CellKey,
    ExampleSets,
    Options,
    Scene,
)

if TYPE_CHECKING:
    from harness.subject import Subject


class WorstCaseOptions(Options):
    """Options of the worst case."""

    of: AttackLabel | list[AttackLabel] | None = None
    """The attacks to unite, by label; by default all that are no controls."""


class WorstCase(Attack[WorstCaseOptions]):
    """Replays what all attacks found on this arm, under every seed; keeps the worst.

    A defence has to hold against the best of the attacks on each example, not on
    average. What was found on the subjects of other seeds is scored on this one.
    """

    name = "worst_case"
    Options = WorstCaseOptions
    controls = ()
    replays = True

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        from harness.search.replay import replay

        sources = self.reads(context.peers.scene) if context.peers else ()
        yield from replay(subject, examples.test, context, sources)

    def budget(self, examples: int) -> Budget:
        """Return nothing: it searches for nothing, and scores what is there."""
        return Budget(forward=0, backward=0)

    def faults(self, scene: Scene) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with its options in a suite."""
        for label in self._labels(scene):
            if label not in scene.attacks:
                yield "of", unknown_name("attack", label, scene.attacks)
            elif isinstance(scene.attacks[label], WorstCase):
                yield "of", f"{label!r} is a worst case itself; name attacks"
        if not self._labels(scene):
            yield "of", "there is no attack to replay"

    def reads(self, scene: Scene) -> Sequence[CellKey]:
        """Return the cells of its own arm, under every seed."""
        return [
            CellKey(scene.arm, label, seed)
            for seed in scene.seeds
            for label in self._labels(scene)
            if label in scene.gets[scene.arm]
        ]

    def _labels(self, scene: Scene) -> tuple[str, ...]:
        from harness.search.replay import as_labels

        if self.options.of is not None:
            return as_labels(self.options.of)
        attacks = scene.attacks
        return tuple(x for x in scene.main if not isinstance(attacks[x], WorstCase))


@hookimpl
def register_attacks() -> list[type[WorstCase]]:
    """Offer the attack."""
    return [WorstCase]
