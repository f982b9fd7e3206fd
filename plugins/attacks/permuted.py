"""The control that says what an attack's gradient buys: its rows are shuffled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness import hookimpl
from harness.api import Adversarial, Attack, AttackContext, Budget, Options
from harness.base import CellError, Ids
from harness.data import ExampleSets
from harness.subject import Subject

if TYPE_CHECKING:
    from torch import Tensor


class Permuted(Attack[Options]):
    """Runs the attack it accompanies on gradients whose rows are shuffled.

    Nothing else differs: the same search makes the same number of passes. How the rows
    are shuffled depends on the cell and on the ids, not on what was asked before.
    """

    name = "permuted"
    example = {"match": "hotflip"}
    controls = ()
    shows = "gradient"

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        if context.matched is None:
            raise CellError(
                "permuted is a control: it needs the attack that it matches"
            )

        def shuffled(
            prompts: Sequence[Ids],
            references: Sequence[Ids],
            gradients: list[Tensor],
        ) -> list[Tensor]:
            return [
                gradient[
                    context.rng("rows", *_key(prompt), *_key(reference)).permutation(
                        len(gradient)
                    )
                ]
                for prompt, reference, gradient in zip(
                    prompts, references, gradients, strict=True
                )
            ]

        own = replace(context, budget=None, matched=None)
        yield from context.matched.run(subject.with_gradients(shuffled), examples, own)

    def budget(self, examples: int) -> Budget:
        """Return nothing: what it costs is the budget of what it accompanies."""
        return Budget(forward=0, backward=0)

    def unfit(self, matched: Attack[Any] | None) -> str | None:
        """Say why it cannot accompany an attack."""
        if matched is None:
            return "permuted is a control: state `match`, the attack it accompanies"
        if matched.needs_peers:
            return f"{matched.name} takes its gradients from other arms"
        if not matched.budget(1).backward:
            return f"{matched.name} takes no gradients, so there are none to shuffle"
        return None


def _key(ids: Ids) -> list[int]:
    return [len(ids), *map(int, ids)]


@hookimpl
def register_attacks() -> list[type[Permuted]]:
    """Offer the attack."""
    return [Permuted]
