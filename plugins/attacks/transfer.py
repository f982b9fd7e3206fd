"""Transfer: what was found on other arms, replayed on this one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness import hookimpl
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


class TransferOptions(Options):
    """Options of transfer."""

    of: AttackLabel | list[AttackLabel] | None = None
    """The attacks to replay, by label; by default all that are no controls."""


class Transfer(Attack[TransferOptions]):
    """Replays on each arm the adversarial prompts that were found on the others.

    Its result for an example is the prompt of highest loss; the trace has the exact dL
    of every source, so that all pairs of arms can be told apart.
    """

    name = "transfer"
    Options = TransferOptions
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
        from harness.search.replay import label_faults

        yield from label_faults(self, self._labels(scene), scene)
        if len(scene.arms) < 2:
            yield "of", "there is no other arm to replay from"
        elif not self._labels(scene):
            yield "of", "there is no attack to replay"

    def reads(self, scene: Scene) -> Sequence[CellKey]:
        """Return the cells of the other arms, with the same seed."""
        return [
            CellKey(arm, label, scene.seed)
            for arm in scene.arms
            for label in self._labels(scene)
            if arm != scene.arm and label in scene.gets[arm]
        ]

    def _labels(self, scene: Scene) -> tuple[str, ...]:
        from harness.search.replay import as_labels

        if self.options.of is not None:
            return as_labels(self.options.of)
        return tuple(x for x in scene.main if not scene.attacks[x].replays)


@hookimpl
def register_attacks() -> list[type[Transfer]]:
    """Offer the attack."""
    return [Transfer]
