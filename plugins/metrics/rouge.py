"""ROUGE of greedy summaries, over the pairs of a corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from harness import hookimpl, records
from harness.api import (
    CorpusName,
    CostContext,
    Metric,
    MetricContext,
    Options,
    Paper,
    Term,
)
from harness.base import Positive, UsageError
from harness.data import Document, TextEncoder
from harness.records import Cost, Estimate
from harness.subject import Subject, write_texts

_DOCUMENTS_AT_ONCE = 64
_STEP_S = 0.03
"""What is assumed of a step in which each of them grows by a token."""


class RougeOptions(Options):
    """Options of rouge."""

    corpus: CorpusName
    """A corpus of pairs; its slice and the suite's limit say which."""
    prompt_tokens: Positive = 512
    """Most tokens of a prompt, the end token included; the rest is cut off."""
    summary_tokens: Positive = 128
    """Most tokens that the subject may generate."""
    stemmer: bool = True
    """Whether words are compared by their stems (Porter's stemmer)."""
    max_documents: Positive | None = None
    """Use only the first so many documents."""


class Rouge(Metric[RougeOptions]):
    """Measures ROUGE-1, ROUGE-2 and ROUGE-L (F1) of greedy summaries.

    The subject reads each prompt and writes until it ends or has written
    `summary_tokens`; Google's rouge_score compares the text with the pair's reference.
    Intervals are percentile bootstraps over documents, or over the clusters of
    documents that the corpus states.
    """

    name = "rouge"
    papers = (
        Paper(
            "Lin 2004",
            "ROUGE: A Package for Automatic Evaluation of Summaries",
            "https://aclanthology.org/W04-1013",
        ),
    )
    example = {"corpus": "test"}
    Options = RougeOptions

    def measure(
        self, subject: Subject, context: MetricContext
    ) -> Iterator[Mapping[str, Any]]:
        """Yield a row for each pair: what was written, how long it is, its scores."""
        options = self.options
        for batch in context.batches(
            options.corpus, _DOCUMENTS_AT_ONCE, options.max_documents
        ):
            yield from self._rows(subject, batch)

    def expected_cost(self, context: CostContext) -> Cost:
        """Return the cost of summaries that are all as long as they may be."""
        options, size = self.options, context.corpus(self.options.corpus)
        documents = min(size.documents, options.max_documents or size.documents)
        prompt = min(size.tokens, options.prompt_tokens)
        cost = context.shape.forward(documents, prompt, options.summary_tokens)
        steps = documents / _DOCUMENTS_AT_ONCE * options.summary_tokens
        context.assumptions.append(
            f"rouge: every summary has {options.summary_tokens} tokens, and "
            f"{_DOCUMENTS_AT_ONCE} of them grow by a token in {_STEP_S} s"
        )
        return cost.model_copy(update={"seconds": _STEP_S * steps})

    def summarise(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
        """Compute the means over documents."""
        documents = [*map(_unit, rows)]
        means = {
            kind: records.bootstrap_mean(
                [row[kind] for row in rows], documents, unit="F1"
            )
            for kind in records.KINDS
        }
        tokens = [row["tokens"] for row in rows]
        return {
            **means,
            "tokens": records.bootstrap_mean(tokens, documents, unit="tokens"),
            "unfinished": records.wilson(
                sum(not row["finished"] for row in rows), len(rows)
            ),
        }

    def estimate_names(self) -> tuple[str, ...]:
        """Return the kinds of ROUGE, and what summaries are like."""
        return (*records.KINDS, "tokens", "unfinished")

    def terms(self, row: Mapping[str, Any]) -> dict[str, Term]:
        """Return a document's own numbers."""
        numbers = {name: row[name] for name in (*records.KINDS, "tokens")}
        numbers["unfinished"] = not row["finished"]
        return {name: Term(_unit(row), float(x)) for name, x in numbers.items()}

    def _rows(
        self, subject: Subject, documents: Sequence[Document]
    ) -> Iterator[dict[str, Any]]:
        model, tokenizer = subject.huggingface()
        encoder_decoder = bool(model.config.is_encoder_decoder)
        encoder = TextEncoder(tokenizer, encoder_decoder=encoder_decoder)
        limit = self.options.prompt_tokens
        prompts = [
            np.array(encoder.prompt(encoder.encode(d.text), 0, limit).ids, np.int64)
            for d in documents
        ]
        written = write_texts(subject, prompts, self.options.summary_tokens)
        for document, (text, tokens, finished) in zip(documents, written, strict=True):
            yield {
                **document.names,
                "reference": self._reference(document),
                "summary": text,
                "tokens": tokens,
                "finished": finished,
                **records.rouge(
                    self._reference(document), text, stemmer=self.options.stemmer
                ),
            }

    def _reference(self, document: Document) -> str:
        if document.reference is None:
            raise UsageError(
                f"corpus {self.options.corpus} holds texts, not pairs: state "
                "its fields `prompt` and `reference`"
            )
        return document.reference


def _unit(row: Mapping[str, Any]) -> str:
    """Return what statistics take as one: the cluster, or else the document."""
    return str(row.get("cluster", row["document_id"]))


@hookimpl
def register_metrics() -> list[type[Metric[Any]]]:
    """Offer rouge."""
    return [Rouge]
