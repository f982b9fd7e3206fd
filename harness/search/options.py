"""What attacks that search for each example by itself have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, Literal, TypeVar

import pydantic

from harness.api import Adversarial, Attack, AttackContext, Options
from harness.base import Positive
from harness.data import Example, ExampleSets
from harness.subject import Search, Subject, lockstep

OptionsT = TypeVar("OptionsT", bound=Options)


class GuidedAttack(Attack[OptionsT]):
    """Searches for each example by itself, where a `Guide` says what to try.

    The searches of many examples advance together, so that their passes share batches.
    """

    blinds = ("uniform",)

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        searches = (self.search_for(subject, one, context) for one in examples.test)
        yield from lockstep(subject, searches)

    @abstractmethod
    def search_for(
        self, subject: Subject, example: Example, context: AttackContext
    ) -> Search[Adversarial]:
        """Return the search for one example; `Guide` takes the context."""


class BlockOptions(Options):
    """Which tokens may change, and towards what."""

    positions: Literal["prompt", "prefix", "suffix"] = "prompt"
    """What may change: every token of the prompt, or tokens put before or after it."""
    tokens: Positive = 20
    """How many tokens are put before or after the prompt."""
    flips: Positive | None = None
    """How many tokens may differ from the first ones; by default, all of the block."""
    start: Annotated[str, pydantic.Field(min_length=1)] | None = None
    """The text that fills a prefix or suffix at first, repeated or cut to length; by
    default its tokens are drawn."""
    steps: Positive
    """How often candidates are drawn and verified."""
    target: Annotated[str, pydantic.Field(min_length=1)] | None = None
    """A text whose loss is to fall; by default the loss of the reference is to rise.
    What is recorded as dL is that of the reference in both cases."""


BlockOptionsT = TypeVar("BlockOptionsT", bound=BlockOptions)


class BlockAttack(GuidedAttack[BlockOptionsT]):
    """Searches over a block of tokens, any of which may change at every step."""

    def unbounded(self, prompt_tokens: int) -> BlockOptionsT | None:
        free = self.options.model_copy(update={"positions": "prompt", "flips": None})
        return None if free == self.options else free

    def beside_prompt(self) -> int:
        return 0 if self.options.positions == "prompt" else self.options.tokens

    def doubled(self) -> BlockOptionsT | None:
        return self.options.model_copy(update={"steps": 2 * self.options.steps})
