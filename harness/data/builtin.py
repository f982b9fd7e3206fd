"""English text that comes with Python itself, as documents for the embedded suite."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import chain

_SHORTEST = 1000
_LONGEST_PART = 1000
_REMEMBERED = 80


@cache
def python_topics() -> list[str]:
    """Return the help topics of this Python as documents of 1,000-3,000 characters.

    Topics are cut between paragraphs; paragraphs that an earlier topic holds already
    are left out, so that slices share no text. The order is fixed but mixed (by hash),
    so that every slice is about everything. The text depends on Python's version.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    documents = chain.from_iterable(
        _documents(_fresh_parts(topics[name], seen)) for name in sorted(topics)
    )
    return sorted(documents, key=lambda text: hashlib.sha256(text.encode()).digest())


BUILTIN_TEXTS: Mapping[str, Callable[[], list[str]]] = {"python-topics": python_topics}
"""What a corpus can name as `builtin`."""


def _fresh_parts(topic: str, seen: set[str]) -> Iterator[str]:
    for paragraph in topic.strip("\n").split("\n\n"):
        words = " ".join(paragraph.split())
        if len(words) >= _REMEMBERED:
            if words in seen:
                continue
            seen.add(words)
        yield from _cut_at_lines(paragraph)


def _cut_at_lines(paragraph: str) -> Iterator[str]:
    part = ""
    for line in paragraph.split("\n"):
        if part and len(part) + len(line) > _LONGEST_PART:
            yield part
            part = line
        else:
            part = f"{part}\n{line}" if part else line
    yield part


def _documents(parts: Iterator[str]) -> Iterator[str]:
    # The last document is held back, to take in a rest too short for one of its own.
    held, document = "", ""
    for part in parts:
        document = f"{document}\n\n{part}" if document else part
        if len(document) >= _SHORTEST:
            if held:
                yield held
            held, document = document, ""
    if held:
        yield f"{held}\n\n{document}" if document else held
