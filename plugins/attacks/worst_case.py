"""The worst case: the best of all attacks and seeds on each example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness import hookimpl
from harness.api import CellKey, Paper, Scene
from harness.base import unknown_name
from harness.search import Replay, as_labels


class WorstCase(Replay):
    """Replays what all attacks found on this arm, under every seed; keeps the worst.

    A defence has to hold against the best of the attacks on each example, not on
    average. What was found on the subjects of other seeds is scored on this one.
    """

    name = "worst_case"
    papers = (
        Paper(
            "Croce and Hein 2020",
            "Reliable Evaluation of Adversarial Robustness with an Ensemble of "
            "Diverse Parameter-free Attacks",
            "https://arxiv.org/abs/2003.01690",
        ),
    )
    shows = "worst"

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
        if self.options.of is not None:
            return as_labels(self.options.of)
        attacks = scene.attacks
        return tuple(x for x in scene.main if not isinstance(attacks[x], WorstCase))


@hookimpl
def register_attacks() -> list[type[WorstCase]]:
    """Offer the attack."""
    return [WorstCase]
