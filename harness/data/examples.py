"""Examples: prompts and references, cut from the documents of corpora."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Protocol

from harness.base import MissingResource, UsageError
from harness.data.corpora import Corpora
from harness.data.cutting import Cutter, Unfit
from harness.data.document import Document, Example, ExampleSets
from harness.data.sections import ExampleSet, ExamplesSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Documents(Protocol):
    """Where documents come from, by the name of the corpus."""

    def all_documents(self, name: str) -> Iterator[Document]:
        """Yield the documents of a corpus, in order."""


def build_examples(
    section: ExamplesSection,
    corpora: Corpora,
    tokenizer: PreTrainedTokenizerBase,
    limit: int | None,
    *,
    encoder_decoder: bool = False,
) -> ExampleSets:
    """Cut one example out of each document, in order, until there are enough.

    Of a text, the first `prompt_tokens` tokens are the prompt and the next
    `reference_tokens` the reference; shorter texts are passed over. Of a pair, both
    are cut to those lengths and may be shorter. With the objective `answer`, the answer
    is whole and the prompt is what precedes it. What the tokenizer adds (OPT's first
    ``</s>``, T5's last) and a corpus's prefix are protected. Raises UsageError where a
    corpus has too few documents for that, or where two sets share one.
    """
    cutter = Cutter.of(section, tokenizer, encoder_decoder=encoder_decoder)
    owners: dict[str, str] = {}
    built = {}
    for role, wanted in section.sets.items():
        found = _take(role, wanted, corpora, cutter, limit)
        _check_disjoint(role, found, owners)
        built[role] = [example for _, example in found]
    return ExampleSets(**built)


def example_fault(
    section: ExamplesSection,
    role: str,
    corpora: Documents,
    tokenizer: PreTrainedTokenizerBase,
    limit: int | None,
    *,
    encoder_decoder: bool = False,
) -> str | None:
    """Return what `build_examples` would raise of one set alone; None for nothing.

    Raises what `corpora` raises itself.
    """
    cutter = Cutter.of(section, tokenizer, encoder_decoder=encoder_decoder)
    try:
        _take(role, section.sets[role], corpora, cutter, limit)
    except MissingResource:
        raise
    except UsageError as error:
        return str(error).removeprefix(f"examples.{role}: ")
    return None


def cut_examples(cutter: Cutter, corpus: str, corpora: Documents) -> Iterator[Example]:
    """Yield an example of each document of a corpus that gives one, in order."""
    for document in corpora.all_documents(corpus):
        with contextlib.suppress(Unfit):
            yield cutter(corpus, document)


def cut_further(cutter: Cutter, corpus: str, corpora: Documents) -> Iterator[Example]:
    """Yield examples of what follows in the texts of a corpus.

    The second of each document that has one, then the third of each, and so on.
    """
    every = [[*cutter.further(corpus, x)] for x in corpora.all_documents(corpus)]
    for same in zip_longest(*every):
        yield from (example for example in same if example is not None)


def _take(
    role: str,
    wanted: ExampleSet,
    corpora: Documents,
    cutter: Cutter,
    limit: int | None,
) -> list[tuple[str, Example]]:
    """Return a set's examples, each with the hash of its document's text."""
    count = wanted.count if limit is None else min(wanted.count, limit)
    found: list[tuple[str, Example]] = []
    unfit: Counter[str] = Counter()
    for document in corpora.all_documents(wanted.corpus):
        try:
            example = cutter(wanted.corpus, document)
        except Unfit as reason:
            unfit[str(reason)] += 1
            continue
        digest = hashlib.sha256(document.text.encode()).hexdigest()
        found.append((digest, example))
        if len(found) == count:
            break
    reasons = "; ".join(f"{n} left out: {why}" for why, n in unfit.most_common())
    if len(found) < count:
        raise UsageError(
            f"examples.{role}: corpus {wanted.corpus} gives {len(found)} examples"
            f"{reasons and f' ({reasons})'}, and {count} are wanted"
        )
    if unfit:
        logging.getLogger(__name__).info("examples.%s: %s", role, reasons)
    return found


def _check_disjoint(
    role: str, found: list[tuple[str, Example]], owners: dict[str, str]
) -> None:
    for digest, example in found:
        if digest in owners:
            raise UsageError(
                f"examples.{role}: document {example.id} has the text of "
                f"{owners[digest]}; the sets must share none"
            )
    owners.update(
        {digest: f"{example.id} of examples.{role}" for digest, example in found}
    )
