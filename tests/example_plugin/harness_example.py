"""An attack and a lifecycle hook, as somebody outside the project would ship them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import pydantic

from harness import hookimpl
from harness.api import Adversarial, Attack, AttackContext, Budget, Options
from harness.data import ExampleSets
from harness.subject import Subject


class RotateOptions(Options):
    """How the prompt is rotated."""

    tokens: Annotated[int, pydantic.Field(gt=0, le=8)] = 1
    """By how many tokens,
    at most 8."""
    direction: Literal["left", "right"] = "left"
    """Which way."""


class Rotate(Attack[RotateOptions]):
    """Rotate the prompt by some tokens.

    It needs no pass through the subject.
    """

    name = "rotate"
    Options = RotateOptions

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        """Yield the rotated prompts."""
        left = self.options.direction == "left"
        shift = -self.options.tokens if left else self.options.tokens
        for example in examples.test:
            ids = example.prompt_ids.copy()
            free = ids[example.protected :]
            ids[example.protected :] = [*free[-shift:], *free[:-shift]]
            yield Adversarial(example.id, ids)

    def budget(self, examples: int) -> Budget:
        """Return what one example costs: nothing."""
        return Budget(forward=0, backward=0)


@hookimpl
def register_attacks() -> list[type[Attack[RotateOptions]]]:
    """Offer the attack."""
    return [Rotate]
