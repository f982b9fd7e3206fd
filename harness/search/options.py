"""What the options of attacks on a block of tokens have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from harness.api import BlockBudget, Options
from harness.base import Positive


class BlockOptions(Options):
    """Which tokens may change, and towards what."""

    positions: Literal["prompt", "prefix", "suffix"] = "prompt"
    """What may change: every token of the prompt, or tokens put before or after it."""
    tokens: Positive = 20
    """How many tokens are put before or after the prompt."""
    start: Annotated[str, pydantic.Field(min_length=1)] | None = None
    """The text that fills a prefix or suffix at first, repeated or cut to length; by
    default its tokens are drawn."""
    steps: Positive
    """How often candidates are drawn and verified."""
    target: Annotated[str, pydantic.Field(min_length=1)] | None = None
    """A text whose loss is to fall; by default the loss of the reference is to rise.
    What is recorded as dL is that of the reference in both cases."""
    reachable_only: bool = False
    """Choose only among prompts that some text encodes to."""

    def layout(self, **more: Any) -> BlockBudget:
        """Return how the search is laid out; `more` are its other fields."""
        return BlockBudget(
            positions=self.positions,
            tokens=self.tokens if self.positions != "prompt" else 0,
            steps=self.steps,
            start=self.start,
            target=self.target,
            reachable_only=self.reachable_only,
            **more,
        )
