"""Examples: prompts and references, cut from the documents of corpora."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import UsageError
from harness.interfaces import Document, Example, ExampleSets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.corpora import Corpora
    from harness.suite import ExampleSet, ExamplesSection


def build_examples(
    section: ExamplesSection,
    corpora: Corpora,
    tokenizer: PreTrainedTokenizerBase,
    limit: int | None,
) -> ExampleSets:
    """Cut one example out of each document, in order, until there are enough.

    The first `prompt_tokens` tokens are the prompt and the next `reference_tokens`
    the reference; shorter documents are passed over. What the tokenizer puts first
    (OPT's ``</s>``) precedes the prompt and is protected. Raises UsageError where a
    corpus has too few such documents, or where two sets share one.
    """
    sets = {"test": section.test}
    if section.search is not None:
        sets["search"] = section.search
    if section.validation is not None:
        sets["validation"] = section.validation
    cutter = _Cutter(section, tokenizer)
    owners: dict[str, str] = {}
    built = {}
    for role, wanted in sets.items():
        found = _take(role, wanted, corpora, cutter, limit)
        _check_disjoint(role, found, owners)
        built[role] = [example for _, example in found]
    return ExampleSets(**built)


class _Cutter:
    """Turns a document into an example, or into None where it is too short."""

    def __init__(
        self, section: ExamplesSection, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self._tokenizer = tokenizer
        self._prompt = section.prompt_tokens
        self.total = section.prompt_tokens + section.reference_tokens
        self._prefix = _prefix(tokenizer)

    def __call__(self, corpus: str, document: Document) -> Example | None:
        ids = _encode(self._tokenizer, document.text)[: self.total]
        if len(ids) < self.total:
            return None
        return Example(
            id=f"{corpus}/{document.id}",
            document_id=f"{corpus}/{document.id}",
            prompt_ids=_array(self._prefix + ids[: self._prompt]),
            reference_ids=_array(ids[self._prompt :]),
            protected=len(self._prefix),
        )


def _take(
    role: str,
    wanted: ExampleSet,
    corpora: Corpora,
    cutter: _Cutter,
    limit: int | None,
) -> list[tuple[str, Example]]:
    count = wanted.count if limit is None else min(wanted.count, limit)
    found = list(itertools.islice(_cut_all(wanted.corpus, corpora, cutter), count))
    if len(found) < count:
        raise UsageError(
            f"examples.{role}: corpus {wanted.corpus} has {len(found)} documents of "
            f"{cutter.total} tokens or more, and {count} are wanted"
        )
    return found


def _cut_all(
    corpus: str, corpora: Corpora, cutter: _Cutter
) -> Iterator[tuple[str, Example]]:
    for document in corpora.all_documents(corpus):
        example = cutter(corpus, document)
        if example is not None:
            yield hashlib.sha256(document.text.encode()).hexdigest(), example


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


def _prefix(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the special tokens that the tokenizer puts before a text."""
    bare = _encode(tokenizer, "a")
    whole = list(tokenizer("a")["input_ids"])
    starts = range(len(whole) - len(bare) + 1)
    start = next(s for s in starts if whole[s : s + len(bare)] == bare)
    return whole[:start]


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    encoded = tokenizer(text, add_special_tokens=False, verbose=False)
    return list(encoded["input_ids"])


def _array(ids: list[int]) -> np.ndarray:
    return np.array(ids, dtype=np.int64)
