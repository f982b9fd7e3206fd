"""No attack: the clean prompt on the way that attacked prompts take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness import hookimpl
from harness.api import Adversarial, Attack, AttackContext, Budget, Options
from harness.data import ExampleSets

if TYPE_CHECKING:
    from harness.subject import Subject


class NoAttack(Attack[Options]):
    """Returns every prompt as it is: its dL must be exactly 0."""

    name = "none"
    controls = ()

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        for example in examples.test:
            yield Adversarial(example.id, example.prompt_ids)

    def budget(self, examples: int) -> Budget:
        """Return what one example costs: nothing."""
        return Budget(forward=0, backward=0)


@hookimpl
def register_attacks() -> list[type[NoAttack]]:
    """Offer the attack."""
    return [NoAttack]
