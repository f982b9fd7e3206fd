"""How much text a suite's corpora hold, in a model's tokens, without loading a model.

A sample of documents is encoded where the model's tokenizer is on this machine; all
that is not known is assumed, and said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.api import CorpusSize, ModelShape
from harness.base import HarnessError, UsageError
from harness.data import Documents
from harness.suite.model import Suite

SAMPLED = 256
"""Documents whose tokens are counted."""
COUNTED = 20_000
"""Documents that are counted at most; a corpus with more is taken for so large."""
UNKNOWN_TOKENS = 1000
"""Tokens of a document of a corpus that is not on this machine."""
UNKNOWN_DOCUMENTS = 1000
"""Documents of such a corpus, where its slice does not say."""


@dataclass
class Texts:
    """The corpora of a suite, as one model reads them."""

    suite: Suite
    corpora: Documents
    shape: ModelShape
    assumptions: list[str] = field(default_factory=list)
    """Gets a sentence for each thing that is assumed."""
    _known: dict[str, _Sample | None] = field(default_factory=dict)

    def size(self, name: str) -> CorpusSize:
        """Return how much there is in a corpus, cut by the suite's limit."""
        sample = self._sample(name)
        limit = self.suite.limit or COUNTED
        if sample is None:
            return CorpusSize(
                min(limit, self._stated_documents(name)), UNKNOWN_TOKENS, None
            )
        references = sample.references
        return CorpusSize(
            min(limit, sample.documents),
            fmean(sample.prompts),
            fmean(references) if references else None,
        )

    def tokens(self, name: str) -> Tokens | None:
        """Return how many tokens of plain text there are in a corpus.

        Each document has one more, its end. None where that cannot be known quickly.
        """
        sample = self._sample(name)
        if sample is None or sample.documents >= COUNTED:
            return None
        lengths = sample.prompts
        if sample.references:
            lengths = [n + m for n, m in zip(lengths, sample.references, strict=True)]
        each = fmean(lengths) + 1
        counted = sample.documents == len(lengths) and self._tokenizer is not None
        return Tokens(round(sample.documents * each), counted)

    def pair(self, name: str, prompt: int, reference: int) -> tuple[float, float]:
        """Return the mean tokens of examples of a corpus, no longer than stated."""
        sample = self._sample(name)
        if sample is None or not sample.references:
            return float(prompt), float(reference)
        return (
            fmean(min(n, prompt) for n in sample.prompts),
            fmean(min(n, reference) for n in sample.references),
        )

    def padded(self, name: str, most: int, rows: int) -> tuple[float, float]:
        """Return what a pair has on average where `rows` of them are padded alike."""
        sample = self._sample(name)
        if sample is None or not sample.references:
            return float(most), float(most)
        return (
            _padded([min(n, most) for n in sample.prompts], rows),
            _padded([min(n, most) for n in sample.references], rows),
        )

    def _stated_documents(self, name: str) -> int:
        start, stop = self.suite.corpora[name].slice.split(":")
        if stop and "%" not in start + stop:
            return int(stop) - int(start or 0)
        return UNKNOWN_DOCUMENTS

    def _sample(self, name: str) -> _Sample | None:
        if name not in self._known:
            try:
                self._known[name] = self._read(name)
            except HarnessError:
                self._known[name] = None
                self.assumptions.append(
                    f"the corpus {name} cannot be read here: "
                    f"{self._stated_documents(name):,} documents of {UNKNOWN_TOKENS:,} "
                    "tokens are assumed"
                )
        return self._known[name]

    def _read(self, name: str) -> _Sample | None:
        documents = self.corpora.all_documents(name)
        first = list(islice(documents, SAMPLED))
        more = sum(1 for _ in islice(documents, COUNTED - len(first)))
        if not first:
            return None
        prompts = self._lengths([document.text for document in first])
        references = [x.reference for x in first if x.reference is not None]
        ends = 1 if self.shape.encoder_decoder else 0
        return _Sample(
            len(first) + more,
            [n + ends for n in prompts],
            [n + ends for n in self._lengths(references)],
        )

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        if self._tokenizer is not None:
            return [len(ids) or 1 for ids in encoded(self._tokenizer, texts)]
        each = self.shape.characters_per_token
        return [max(1, round(len(text) / each)) for text in texts]

    @cached_property
    def _tokenizer(self):  # type: ignore[no-untyped-def]  # tokenizers has no types
        each = f"a token is taken for {self.shape.characters_per_token:g} characters"
        if self.shape.tokenizer is None:
            self.assumptions.append(each)
            return None
        try:
            return load_tokenizer(self.shape.tokenizer)
        except UsageError as error:  # loading the model says it, too
            self.assumptions.append(f"{error}: {each}")
            return None


@dataclass(frozen=True)
class Tokens:
    """How much a corpus holds."""

    tokens: int
    counted: bool
    """Whether they were counted; or else it is what some of its documents say."""


@dataclass(frozen=True)
class _Sample:
    """What was found in a corpus."""

    documents: int
    prompts: list[int]
    """Tokens of each sampled document, or of its prompt."""
    references: list[int]


def load_tokenizer(path: Path):  # type: ignore[no-untyped-def]
    """Return the tokenizer of a ``tokenizer.json``, without transformers.

    Raises UsageError where it is none.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except BaseException as error:  # the library raises nothing narrower
        if not _is_fault(error):
            raise
        cause = " ".join(str(error).split())
        raise UsageError(f"{path} cannot be read ({cause})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encoded(
    tokenizer: Any, texts: Sequence[str], *, special: bool = True
) -> list[list[int]]:
    """Return the ids of texts, `special` ones that the tokenizer adds among them.

    Raises HarnessError where it cannot encode them.
    """
    try:
        found = tokenizer.encode_batch(list(texts), add_special_tokens=special)
    except BaseException as error:  # the library raises nothing narrower
        if not _is_fault(error):
            raise
        raise HarnessError(f"the tokenizer encodes no texts ({error})") from error
    return [one.ids for one in found]


def _is_fault(error: BaseException) -> bool:
    """Say whether a library failed; a panic of one in Rust is no Exception."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _padded(lengths: Sequence[int], rows: int) -> float:
    return fmean(max(lengths[i : i + rows]) for i in range(0, len(lengths), rows))
