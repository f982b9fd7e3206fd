"""The control of a prepended trigger: real text of the same length in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import hookimpl
from harness.api import Adversarial, Attack, AttackContext, Budget, Options
from harness.base import CellError
from harness.data import Example, ExampleSets

if TYPE_CHECKING:
    import numpy as np

    from harness.search import Trigger
    from harness.subject import Subject


class _Text(NamedTuple):
    """A piece of a document, as long as the trigger."""

    example: Example
    start: int
    ids: Trigger


class Benign(Attack[Options]):
    """Prepends text of the corpus, as long as the trigger it accompanies.

    So it tells the effect of a trigger from that of shifted positions and of any text
    in front. It draws pieces of the search documents (then of the validation documents)
    without repetition, as many as the matched budget pays for, and uses the one of
    highest mean loss on the validation prompts.
    """

    name = "benign"
    uses_search_examples = True
    controls = ()
    shows = "text"

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        from harness.search import Batch, trigger_passes, with_trigger

        budget = context.budget
        if budget is None or budget.trigger is None:
            raise CellError("benign is the control of a prepended trigger alone")
        validation = examples.validation[: budget.trigger.validation_prompts]
        whole = trigger_passes(subject, budget, examples)
        texts = _draw(
            examples, budget.trigger.tokens, int(whole / len(validation)), context
        )
        if not texts:
            raise CellError("no document is as long as the trigger")
        triggers = [text.ids for text in texts]
        batch = Batch(subject, validation)
        losses = batch.losses(triggers)
        best = batch.top(triggers, losses, 1)[0]
        text = texts[best]
        step = {
            "step": 1,
            "loss": float(losses[best]),
            "drawn": len(texts),
            "document": text.example.document_id,
            "start": text.start,
        }
        for example in examples.test:
            yield Adversarial(example.id, with_trigger(example, text.ids), (step,))

    def budget(self, examples: int) -> Budget:
        """Return nothing: what it costs is the budget of what it accompanies."""
        return Budget(forward=0, backward=0)

    def unfit(self, matched: Attack[Any] | None) -> str | None:
        """Say why it cannot accompany an attack."""
        if matched is None:
            return "benign is a control: state `match`, the attack it accompanies"
        if matched.needs_peers or matched.budget(1).trigger is None:
            return (
                f"{matched.name} prepends no trigger, which benign text would replace"
            )
        return None


def _draw(
    examples: ExampleSets, tokens: int, count: int, context: AttackContext
) -> list[_Text]:
    """Draw `count` pieces, those of search documents first; at least one."""
    pools = (_pieces(examples.search, tokens), _pieces(examples.validation, tokens))
    rng: np.random.Generator = context.rng("text")
    drawn = [pool[i] for pool in pools for i in rng.permutation(len(pool))]
    return drawn[: max(1, count)]


def _pieces(examples: Sequence[Example], tokens: int) -> list[_Text]:
    """Return all different pieces of the documents, special tokens left out."""
    import numpy as np

    pieces: dict[Trigger, _Text] = {}
    for example in examples:
        own = [example.prompt_ids[example.protected :], example.reference_ids]
        ids = [int(token) for token in np.concatenate(own)]
        for start in range(len(ids) - tokens + 1):
            piece = tuple(ids[start : start + tokens])
            pieces.setdefault(piece, _Text(example, start, piece))
    return list(pieces.values())


@hookimpl
def register_attacks() -> list[type[Benign]]:
    """Offer the attack."""
    return [Benign]
