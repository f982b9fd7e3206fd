"""Whether two corpora can share a document, judged from the suite alone."""

from __future__ import annotations

import fnmatch
import glob
import math
import os
from dataclasses import dataclass

from harness.data.sections import CorpusSection


@dataclass(frozen=True)
class Source:
    """Where a corpus takes its documents from, and which."""

    kind: str
    """``path``, ``dataset`` or ``builtin``."""
    name: str
    files: str
    """What of a dataset: its files, or else its split."""
    slice: str

    @classmethod
    def of(cls, corpus: CorpusSection) -> Source:
        """Return the source of a corpus."""
        if corpus.path is not None:
            return cls("path", corpus.path, "", corpus.slice)
        if corpus.dataset is not None:
            files = corpus.files or f"split {corpus.split}"
            return cls("dataset", corpus.dataset, files, corpus.slice)
        return cls("builtin", str(corpus.builtin), "", corpus.slice)


def overlap(first: Source, second: Source) -> str | None:
    """Say how two sources share documents, as the head of a sentence; None if not.

    Slices in different units cannot be told apart without reading the text, so they
    count as overlapping unless one of them is empty.
    """
    if not _same_text(first, second):
        return None
    if _same_files(first, second):
        a, b = _bounds(first.slice), _bounds(second.slice)
        if _empty(a) or _empty(b) or _disjoint(a, b):
            return None
        if not _comparable(a, b):
            return f"cannot be shown to share no document ({_slices(first, second)})"
    return f"shares documents of {first.name} ({_slices(first, second)})"


def _same_text(first: Source, second: Source) -> bool:
    if first.kind != second.kind:
        return False
    if first.kind == "path":
        return bool(_expand(first.name) & _expand(second.name))
    one, other = first.files, second.files
    globs = fnmatch.fnmatch(one, other) or fnmatch.fnmatch(other, one)
    return first.name == second.name and globs


def _same_files(first: Source, second: Source) -> bool:
    """Tell whether slices of the two count the same documents."""
    if first.kind == "path":
        return _expand(first.name) == _expand(second.name)
    return first.files == second.files


def _expand(pattern: str) -> set[str]:
    found = [] if os.path.exists(pattern) else glob.glob(pattern)  # noqa: PTH110,PTH207
    return {os.path.realpath(path) for path in found or [pattern]}


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


def _slices(first: Source, second: Source) -> str:
    return f"slices {second.slice!r} and {first.slice!r}"
