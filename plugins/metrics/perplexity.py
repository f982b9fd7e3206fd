"""Perplexity over the documents of a corpus, per token, word and byte."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pydantic

from harness import hookimpl, records
from harness.api import (
    CorpusName,
    CostContext,
    Metric,
    MetricContext,
    ModelShape,
    Options,
    Paper,
    Term,
)
from harness.base import CellError, Ids, Positive, UsageError
from harness.data import Document, TextEncoder
from harness.records import Cost, Estimate
from harness.subject import Subject

_DOCUMENTS_AT_ONCE = 32
_CONTEXT = 2048
_DENOMINATORS = {
    "loss": "tokens",
    "token_perplexity": "tokens",
    "word_perplexity": "words",
    "byte_perplexity": "bytes",
    "bits_per_byte": "bytes",
}
"""What the nats of an estimate are divided by."""


class PerplexityOptions(Options):
    """Options of perplexity."""

    corpus: CorpusName
    """The corpus; its slice and the suite's limit say which documents."""
    context: Positive | None = None
    """Tokens in a window; by default as many as the model has positions (2,048 where
    it states none)."""
    stride: Positive | None = None
    """Tokens that a further window scores; by default all of it. With less, each token
    has at least context - stride tokens before it (less at a document's start)."""
    max_documents: Positive | None = None
    """Use only the first so many documents."""
    max_tokens: Positive | None = None
    """Stop after the document with which the total reaches so many tokens."""

    @pydantic.model_validator(mode="after")
    def _stride_fits(self) -> PerplexityOptions:
        if self.context and self.stride and self.stride > self.context:
            raise ValueError("stride must not exceed context")
        return self


class Perplexity(Metric[PerplexityOptions]):
    """Measures token, word and byte perplexity and bits per byte of a corpus.

    Every token of a document is scored once, the first one after the beginning-of-text
    token (end-of-text where there is none), as lm-eval's rolling log-likelihood does:
    on the same documents, `word_perplexity`, `byte_perplexity` and `bits_per_byte`
    equal lm-eval's. Intervals are percentile bootstraps over documents, or over the
    clusters of documents that the corpus states.

    Of pairs, the reference alone is scored, after the prompt: its tokens (the end of
    the text included, where an encoder-decoder model writes it), words and bytes.
    Prompts are cut to what `context` leaves them; an encoder reads so many tokens.
    """

    name = "perplexity"
    papers = (
        Paper(
            "Jelinek et al. 1977",
            "Perplexity: a measure of the difficulty of speech recognition tasks",
            "https://doi.org/10.1121/1.2016299",
        ),
    )
    example = {"corpus": "test"}
    Options = PerplexityOptions
    rolling = True

    def measure(
        self, subject: Subject, context: MetricContext
    ) -> Iterator[Mapping[str, Any]]:
        """Yield a row for each document: tokens, words, bytes, and nats of them all."""
        options = self.options
        left = options.max_tokens or math.inf
        for batch in context.batches(
            options.corpus, _DOCUMENTS_AT_ONCE, options.max_documents
        ):
            for row in self._score(subject, batch, left):
                yield row
                left -= row["tokens"]
                if left <= 0:
                    return

    def expected_cost(self, context: CostContext) -> Cost:
        """Return the cost of all windows, or of all pairs."""
        options, shape = self.options, context.shape
        size = context.corpus(options.corpus)
        documents = min(size.documents, options.max_documents or size.documents)
        window = options.context or shape.positions or _CONTEXT
        if size.reference_tokens is not None:
            reference = min(size.reference_tokens, window // 2)
            room = window if shape.encoder_decoder else window - reference
            return shape.forward(documents, min(size.tokens, room), reference)
        documents = min(documents, (options.max_tokens or math.inf) / size.tokens)
        read = min(window, size.tokens)
        # The last window of a document is as long as the others.
        more = (size.tokens - read) / min(options.stride or window, window)
        windows = 1 + more + (0.5 if more else 0)
        scored = size.tokens / windows
        return shape.forward(documents * windows, 1 + read - scored, scored)

    def faults(self, shape: ModelShape) -> Iterator[tuple[str, str]]:
        """Yield a context that is longer than the model reads, or than its windows."""
        yield from self._faults(shape.positions)

    def summarise(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
        """Compute perplexities and losses from sums over documents."""
        return {
            "loss": _ratio(rows, "tokens", None, "nats/token"),
            "token_perplexity": _ratio(rows, "tokens", np.exp, "perplexity"),
            "word_perplexity": _ratio(rows, "words", np.exp, "perplexity"),
            "byte_perplexity": _ratio(rows, "bytes", np.exp, "perplexity"),
            "bits_per_byte": _ratio(
                rows, "bytes", lambda nats: nats / math.log(2), "bits/byte"
            ),
        }

    def estimate_names(self) -> tuple[str, ...]:
        """Return the names of losses and perplexities."""
        return tuple(_DENOMINATORS)

    def terms(self, row: Mapping[str, Any]) -> dict[str, Term]:
        """Return a document's nats and its tokens, words or bytes."""
        if row["nats"] is None:
            return {}
        units = {"bits_per_byte": math.log(2)}
        unit = row.get("cluster", row["document_id"])
        return {
            name: Term(unit, row["nats"] / units.get(name, 1), row[of])
            for name, of in _DENOMINATORS.items()
        }

    def _score(
        self, subject: Subject, documents: Sequence[Document], left: float
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of documents, of texts those with the first `left` tokens."""
        pairs = [d for d in documents if d.reference is not None]
        texts = [d for d in documents if d.reference is None]
        if texts:
            yield from self._score_texts(subject, texts, left)
        if pairs:
            yield from self._score_pairs(subject, pairs)

    def _score_pairs(
        self, subject: Subject, documents: Sequence[Document]
    ) -> Iterator[dict[str, Any]]:
        model, tokenizer = subject.huggingface()
        apart = bool(model.config.is_encoder_decoder)
        encoder = TextEncoder(tokenizer, encoder_decoder=apart)
        context, _ = self._window(subject)
        for document in documents:
            gap = "" if apart else document.gap
            reference = encoder.reference(gap + str(document.reference), context // 2)
            room = context if apart else context - len(reference) - len(encoder.start)
            prompt = encoder.prompt(encoder.encode(document.text), 0, room).ids
            pair = [np.array(prompt, np.int64)], np.array(reference, np.int64)
            (loss,) = subject.exact_losses(*pair)
            yield _row(
                document,
                str(document.reference),
                len(reference),
                float(loss) * len(reference),
            )

    def _score_texts(
        self, subject: Subject, documents: Sequence[Document], left: float
    ) -> Iterator[dict[str, Any]]:
        encoded: list[Ids] = []
        for document in documents:
            if left <= 0:
                break
            encoded.append(_encode(subject, document.text))
            left -= len(encoded[-1]) - 1
        documents = documents[: len(encoded)]
        context, stride = self._window(subject)
        windows = [
            (number, sequence, first)
            for number, ids in enumerate(encoded)
            for sequence, first in _windows(ids, context, stride)
        ]
        losses = subject.token_losses(
            [sequence for _, sequence, _ in windows], [first for *_, first in windows]
        )
        nats = [0.0] * len(documents)
        for (number, *_), scored in zip(windows, losses, strict=True):
            nats[number] += float(scored.sum())
        for document, ids, loss in zip(documents, encoded, nats, strict=True):
            if len(ids) > 1:
                yield _row(document, document.text, len(ids) - 1, loss)

    def _window(self, subject: Subject) -> tuple[int, int]:
        for option, message in self._faults(subject.max_positions):
            raise UsageError(f"{option}: {message}")
        context = self.options.context or subject.max_positions or _CONTEXT
        return context, self.options.stride or context

    def _faults(self, positions: int | None) -> Iterator[tuple[str, str]]:
        context = self.options.context or positions or _CONTEXT
        stride = self.options.stride or context
        if positions and context > positions:
            what = f"{context} tokens are more than the model's {positions} positions"
            yield "context", what
        if stride > context:
            yield "stride", f"{stride} tokens exceed the context of {context} tokens"


@hookimpl
def register_metrics() -> list[type[Metric[Any]]]:
    """Offer perplexity."""
    return [Perplexity]


def _encode(subject: Subject, text: str) -> Ids:
    """Return the ids of a text after the token that its first one is predicted from."""
    _, tokenizer = subject.huggingface()
    start = tokenizer.bos_token_id
    if start is None:
        start = tokenizer.eos_token_id
    if start is None:
        raise CellError("the tokenizer has no token to predict a text's first from")
    # A start token that the tokenizer adds is scored too, as lm-eval does.
    special = not text.startswith(tokenizer.decode(start))
    ids = tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
    return np.array([start, *ids], dtype=np.int64)


def _windows(ids: Ids, context: int, stride: int) -> Iterator[tuple[Ids, int]]:
    """Yield windows of ids, and from which position on each one is scored.

    A window reads at most `context` ids and predicts one more. The first scores all of
    it, a further one the next `stride`; the last is as long as the others.
    """
    scored, end = 1, min(len(ids), context + 1)
    while scored < len(ids):
        start = max(0, end - context - 1)
        yield ids[start:end], scored - start
        scored, end = end, min(len(ids), end + stride)


def _row(document: Document, text: str, tokens: int, nats: float) -> dict[str, Any]:
    row = {
        **document.names,
        "tokens": tokens,
        "words": len(re.split(r"\s+", text)),
        "bytes": len(text.encode()),
        "nats": nats if math.isfinite(nats) else None,
    }
    return row if math.isfinite(nats) else {**row, "reason": "the loss is not finite"}


def _ratio(
    rows: Sequence[Mapping[str, Any]], denominator: str, transform: Any, unit: str
) -> Estimate:
    broken = sum(row["nats"] is None for row in rows)
    if broken:
        return Estimate(
            value=None,
            n=len(rows),
            unit=unit,
            method="ratio of sums",
            reason=f"the loss of {broken} of {len(rows)} documents is not finite",
        )
    sums: dict[Hashable, list[float]] = {}
    for number, row in enumerate(rows):
        own = sums.setdefault(row.get("cluster", number), [0.0, 0.0])
        own[0] += row["nats"]
        own[1] += row[denominator]
    nats, counts = ([own[i] for own in sums.values()] for i in (0, 1))
    over = "clusters" if any("cluster" in row for row in rows) else "documents"
    return records.bootstrap_ratio(nats, counts, transform, unit=unit, over=over)
