"""What a constraint may read, where an arm is made from more than a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.api import ArmContext
from harness.base import CellError, Ids, UsageError
from harness.data import (
    Corpora,
    Cutter,
    Example,
    ExampleSet,
    ExampleSets,
    ExamplesSection,
    build_examples,
    content_key,
    content_of,
    cut_examples,
    cut_further,
)
from harness.models import RecoverySection
from harness.records import read_record, read_samples
from harness.running.context import RunContext
from harness.subject import Subject, Vocabulary
from harness.suite import CellPlan, VariantPlan

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


HELD_OUT_EXAMPLES = (64, 32, 16, 8)
"""How many are cut from the held-out corpus of recovery where the suite has no
validation examples: the first of these numbers that the corpus suffices for."""
Cut = Callable[[Cutter, str, Corpora], Iterator[Example]]
"""What cuts examples of a corpus."""
APART = 1000
"""How many examples apart from the test examples are cut at most."""


def arm_context(
    run: RunContext,
    plan: VariantPlan,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> ArmContext:
    """Return what a constraint may use, other subjects aside.

    Nothing of it is read before it is asked for.
    """
    encoder_decoder = bool(model.config.is_encoder_decoder)
    rows = model.get_input_embeddings().weight.shape[0]
    return ArmContext(
        seed=plan.seed,
        tokenizer=tokenizer,
        examples=cache(partial(example_sets, run, tokenizer, encoder_decoder)),
        apart=cache(partial(_apart, run, tokenizer, encoder_decoder)),
        losses=partial(_losses, run, tokenizer),
        allowed=cache(partial(_allowed, run, tokenizer, rows)),
        attacked=partial(_attacked, run, plan.reads) if plan.reads else None,
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


def _apart(
    run: RunContext, tokenizer: PreTrainedTokenizerBase, encoder_decoder: bool
) -> list[Example]:
    """Cut examples of what no training saw, but for the documents of the test examples.

    One of each document and, where these are few, of what follows in their texts.
    """
    section = run.suite.examples
    assert section is not None  # `harness.suite.checks` wants them stated
    cutter = Cutter.of(section, tokenizer, encoder_decoder=encoder_decoder)
    tests = cut_examples(cutter, section.test.corpus, run.corpora)
    known = {content_of(example) for example in islice(tests, section.test.count)}

    def cut(how: Cut) -> Iterator[Example]:
        corpora = run.suite.unseen_corpora()
        return chain.from_iterable(how(cutter, x, run.corpora) for x in corpora)

    found = list(islice(_distinct(cut(cut_examples), known), APART))
    documents = {example.document_id for example in found}
    more = (x for x in cut(cut_further) if x.document_id in documents)
    return [*found, *islice(_distinct(more, known), APART - len(found))]


def _distinct(examples: Iterable[Example], known: set[str]) -> Iterator[Example]:
    """Yield each example once, and none that is known."""
    for example in examples:
        content = content_of(example)
        if content not in known:
            known.add(content)
            yield example


def _attacked(run: RunContext, cells: Sequence[CellPlan]) -> dict[str, float]:
    """Return the largest dL of each example among cells, errors left out."""
    largest: dict[str, float] = {}
    for cell in cells:
        record = read_record(run.folder.record_path(cell.kind, cell.id))
        for row in read_samples(run.folder.samples_path(record)):
            if row.delta_loss is not None:
                key = content_key(row.clean_prompt_ids, row.reference_ids)
                largest[key] = max(row.delta_loss, largest.get(key, row.delta_loss))
    return largest


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
