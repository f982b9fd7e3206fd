"""What a constraint may read, where an arm is made from more than a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.api import ArmContext
from harness.base import CellError, Ids, UsageError
from harness.data import (
    Example,
    ExampleSet,
    ExampleSets,
    ExamplesSection,
    build_examples,
    content_of,
)
from harness.models import RecoverySection
from harness.run.context import RunContext
from harness.subject import Subject, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


HELD_OUT_EXAMPLES = (64, 32, 16, 8)
"""How many are cut from the held-out corpus of recovery where the suite has no
validation examples: the first of these numbers that the corpus suffices for."""


def arm_context(
    run: RunContext,
    seed: int,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    matched: Callable[[], PreTrainedModel] | None,
    report: Callable[[int, int], None],
) -> ArmContext:
    """Return what a constraint may use; nothing of it is read before it is asked."""
    encoder_decoder = bool(model.config.is_encoder_decoder)
    rows = model.get_input_embeddings().weight.shape[0]
    return ArmContext(
        seed=seed,
        tokenizer=tokenizer,
        examples=cache(partial(example_sets, run, tokenizer, encoder_decoder)),
        losses=partial(_losses, run, tokenizer),
        allowed=cache(partial(_allowed, run, tokenizer, rows)),
        matched=matched,
        report=report,
    )


def example_sets(
    run: RunContext, tokenizer: PreTrainedTokenizerBase, encoder_decoder: bool
) -> ExampleSets:
    """Build the suite's examples, all of them: no limit is part of a subject.

    Where the suite has no validation examples, they are cut from the held-out corpus
    of recovery, without those that are in another set.
    """
    section = run.suite.examples
    assert section is not None  # `harness.suite.checks` wants them stated
    build = partial(
        build_examples,
        corpora=run.corpora,
        tokenizer=tokenizer,
        limit=None,
        encoder_decoder=encoder_decoder,
    )
    sets = build(section)
    if sets.validation:
        return sets
    known = {content_of(example) for example in (*sets.test, *sets.search)}
    for count in HELD_OUT_EXAMPLES:
        try:
            found = build(_held_out(section, run.suite.recovery, count)).test
        except UsageError:  # too few documents that are long enough
            continue
        apart = [example for example in found if content_of(example) not in known]
        if len(apart) >= HELD_OUT_EXAMPLES[-1]:
            return replace(sets, validation=apart)
    raise CellError(
        f"no validation examples: state `examples.validation`, or a corpus at "
        f"`recovery.validation` with {HELD_OUT_EXAMPLES[-1]} documents or more that "
        "are long enough and not among the other examples"
    )


def _held_out(
    section: ExamplesSection, recovery: RecoverySection | None, count: int
) -> ExamplesSection:
    assert recovery is not None  # or `harness.suite.checks` wants validation examples
    assert recovery.validation is not None
    wanted = ExampleSet(corpus=recovery.validation, count=count)
    apart = {"test": wanted, "search": None, "validation": None}
    return section.model_copy(update=apart)


def _allowed(run: RunContext, tokenizer: PreTrainedTokenizerBase, rows: int) -> Ids:
    return Vocabulary(tokenizer, rows, run.suite.tokens).allowed


def _losses(
    run: RunContext,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    examples: Sequence[Example],
) -> NDArray[np.float64]:
    """Score examples on a model, whose parameters stay as trainable as they were."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    # A new subject each time: one remembers, and the weights change between calls.
    subject = Subject(
        model, tokenizer, device=run.device, batch_size=run.suite.batch_size
    )
    try:
        return subject.losses(
            [example.prompt_ids for example in examples],
            [example.reference_ids for example in examples],
        )
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
