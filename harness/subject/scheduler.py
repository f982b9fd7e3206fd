"""Searches ask, the subject answers: many of them advance in step and share passes.

A search is a generator: it yields a request, is sent the answer, and returns what it
found. `lockstep` answers the requests of many searches, those that ask for the same by
one call. What comes out of a search never depends on which others run beside it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum, auto
from itertools import accumulate, islice, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from harness.base import Ids

T = TypeVar("T")
Pair = tuple["Ids", "Ids"]
"""A prompt, and the reference that is scored after it."""

WIDTH = 32
"""Searches that advance together: enough to fill a batch with few candidates each."""


class Ask(IntEnum):
    """What a search may ask of pairs; what stands first here is answered first.

    Losses stand last: when their turn comes every search waits for some, however many
    near ties it had to decide and whether it took a gradient, and one call scores all.
    """

    FINER_LOSSES = auto()
    """What decides near ties of a search below float32, as far as it can."""
    EXACT_LOSSES = auto()
    """What decides near ties for good: `Subject.exact_losses`."""
    GRADIENTS = auto()
    """`Subject.gradients`."""
    LOSSES = auto()
    """`Subject.losses`."""
    REACHABLE_LOSSES = auto()
    """The same, NaN where no text encodes to the prompt."""


class Request(NamedTuple):
    """Asks something of some pairs; the answer has an entry for each, in order."""

    ask: Ask
    pairs: Sequence[Pair]


Search = Generator[Request, Any, T]
"""Yields requests, is sent their answers, and returns what it found."""


class Answering(Protocol):
    """What answers requests: a `Subject`."""

    def answer(self, ask: Ask, pairs: Sequence[Pair]) -> Any:
        """Return what was asked for, an array or list with an entry for each pair."""


def lockstep(
    subject: Answering, searches: Iterable[Search[T]], width: int | None = None
) -> Iterator[T]:
    """Run searches, `width` (or `WIDTH`) at a time; yield their results as they end.

    A search is begun when there is room for it. Its result is that of running it
    alone: losses that rounding could swap are decided by `Subject.choice`.
    """
    waiting, width = iter(searches), width or WIDTH
    running: dict[Search[T], Request] = {}

    def begun() -> dict[Search[T], Any]:
        return dict.fromkeys(islice(waiting, width - len(running)))

    while answers := begun() or _answers(subject, running):
        for search, answer in answers.items():
            try:
                running[search] = search.send(answer)
                continue
            except StopIteration as end:
                running.pop(search, None)
                result: T = end.value
            yield result


def alone(subject: Answering, search: Search[T]) -> T:
    """Run one search by itself."""
    return next(lockstep(subject, [search]))


def _answers(
    subject: Answering, running: Mapping[Search[T], Request]
) -> dict[Search[T], Any]:
    """Answer, by one call, those who ask for what stands first in `Ask`."""
    if not running:
        return {}
    first = min(request.ask for request in running.values())
    asking = {one: r.pairs for one, r in running.items() if r.ask == first}
    answer = subject.answer(first, [pair for own in asking.values() for pair in own])
    ends = accumulate(map(len, asking.values()), initial=0)
    return {
        one: answer[a:b] for one, (a, b) in zip(asking, pairwise(ends), strict=True)
    }
