"""Whether two corpora share documents, as far as it shows without reading them."""

from __future__ import annotations

import fnmatch
import math
import os

from harness.data.patterns import matching
from harness.data.sections import CorpusSection


def shared_documents(first: CorpusSection, second: CorpusSection) -> str | None:
    """Say how two corpora share documents, as the head of a sentence; None if not.

    Slices in different units cannot be told apart without reading the text, so they
    count as overlapping unless one of them is empty.
    """
    if not _same_text(first, second):
        return None
    slices = f"slices {second.slice!r} and {first.slice!r}"
    if _same_files(first, second):
        a, b = _bounds(first.slice), _bounds(second.slice)
        if _empty(a) or _empty(b) or _disjoint(a, b):
            return None
        if not _comparable(a, b):
            return f"cannot be shown to share no document ({slices})"
    name = first.path or first.dataset or first.builtin
    return f"shares documents of {name} ({slices})"


def _same_text(first: CorpusSection, second: CorpusSection) -> bool:
    if first.path is not None and second.path is not None:
        return bool(_expand(first.path) & _expand(second.path))
    if first.dataset is not None and first.dataset == second.dataset:
        one, other = _files(first), _files(second)
        return fnmatch.fnmatch(one, other) or fnmatch.fnmatch(other, one)
    return first.builtin is not None and first.builtin == second.builtin


def _same_files(first: CorpusSection, second: CorpusSection) -> bool:
    """Tell whether slices of the two count the same documents."""
    if first.path is not None and second.path is not None:
        return _expand(first.path) == _expand(second.path)
    return first.builtin is not None or _files(first) == _files(second)


def _files(dataset: CorpusSection) -> str:
    """Return the files pattern of a dataset, or its split."""
    return dataset.files or f"split {dataset.split}"


def _expand(pattern: str) -> set[str]:
    return {os.path.realpath(path) for path in matching(pattern) or [pattern]}


_Bound = tuple[float, str]
"""A number and its unit: ``%``, ``n``, or empty for an open end."""


def _bounds(text: str) -> tuple[_Bound, _Bound]:
    start, stop = text.split(":")
    return _bound(start, 0.0), _bound(stop, math.inf)


def _bound(text: str, default: float) -> _Bound:
    if not text or float(text.rstrip("%")) == 0:
        return (0.0 if text else default), ""
    if text == "100%":
        return math.inf, ""
    return float(text.rstrip("%")), "%" if text.endswith("%") else "n"


def _comparable(a: tuple[_Bound, _Bound], b: tuple[_Bound, _Bound]) -> bool:
    return len({unit for _, unit in (*a, *b) if unit}) <= 1


def _empty(a: tuple[_Bound, _Bound]) -> bool:
    return _comparable(a, a) and a[0][0] >= a[1][0]


def _disjoint(a: tuple[_Bound, _Bound], b: tuple[_Bound, _Bound]) -> bool:
    """Compare one end with the other's start, where both have the same unit."""
    return _before(a[1], b[0]) or _before(b[1], a[0])


def _before(stop: _Bound, start: _Bound) -> bool:
    return stop[1] == start[1] and stop[0] <= start[0]
