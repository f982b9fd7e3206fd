"""ROUGE of a summary against its reference, by Google's rouge_score."""

from __future__ import annotations

from functools import cache
from typing import Any

KINDS = ("rouge1", "rouge2", "rougeL")
"""Unigrams, bigrams, and the longest common subsequence [Lin 2004]."""


def rouge(reference: str, candidate: str, *, stemmer: bool = True) -> dict[str, float]:
    """Return the F1 of each of `KINDS`, between 0 and 1.

    Words are lower-cased runs of ``[a-z0-9]``, stemmed by Porter unless told not to,
    as in T5's own evaluation.
    """
    scores = _scorer(stemmer).score(reference, candidate)
    return {kind: float(scores[kind].fmeasure) for kind in KINDS}


@cache
def _scorer(stemmer: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([*KINDS], use_stemmer=stemmer)
