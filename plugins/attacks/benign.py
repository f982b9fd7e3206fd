"""The control of a prepended trigger: real text of the same length in its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from harness import hookimpl
from harness.api import Adversarial, Attack, AttackContext, Budget, Options
from harness.base import CellError
from harness.data import ExampleSets
from harness.subject import Subject


class Benign(Attack[Options]):
    """Prepends text of the corpus, as long as the trigger it accompanies.

    So it tells the effect of a trigger from that of shifted positions and of any text
    in front. It draws pieces of the search documents (then of the validation documents)
    without repetition, as many as the matched budget pays for, and uses the one of
    highest mean loss on the validation prompts.
    """

    name = "benign"
    example = {"match": "uat"}
    uses_search_examples = True
    controls = ()
    shows = "text"

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        if self.unfit(context.matched):
            raise CellError("benign is the control of a prepended trigger alone")
        assert context.matched is not None
        own = replace(context, budget=None, matched=None, blind="text")
        yield from context.matched.run(subject, examples, own)

    def budget(self, examples: int) -> Budget:
        """Return nothing: what it costs is the budget of what it accompanies."""
        return Budget(forward=0, backward=0)

    def unfit(self, matched: Attack[Any] | None) -> str | None:
        """Say why it cannot accompany an attack."""
        if matched is None:
            return "benign is a control: state `match`, the attack it accompanies"
        if "text" not in matched.blinds:
            return (
                f"{matched.name} prepends no trigger, which benign text would replace"
            )
        return None


@hookimpl
def register_attacks() -> list[type[Benign]]:
    """Offer the attack."""
    return [Benign]
