"""Searches ask, the subject answers: many of them advance in step and share passes.

A search is a generator: it yields a request, is sent the answer, and returns what it
found. `lockstep` answers the requests of many searches, those that ask for the same by
one call, and lets a device work for some while others are advanced. What comes out of a
search never depends on which others run beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum, auto
from itertools import accumulate, islice, pairwise
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from harness.base import Ids

T = TypeVar("T")
Pair = tuple["Ids", "Ids"]
"""A prompt, and the reference that is scored after it."""


class Lanes(NamedTuple):
    """How many searches advance side by side."""

    groups: int = 1
    """Groups that take turns: a device works for the others while one is advanced."""
    width: int = 32
    """Searches of a group, whose requests share passes: enough to fill them with few
    candidates each."""


class Place(NamedTuple):
    """A token of a prompt, and which others its gradient says to write there."""

    token: int
    """The id that stands there."""
    slope: Tensor
    """dL/d(embedding output) there, [d]."""
    k: int
    """How many to say, at most."""
    scaled: bool
    """Whether gains are divided by the squared distance of tokens."""
    near: Tensor | None = None
    """Which ids [V] may stand there, besides what is allowed; None: all of them."""


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
    TOKENS = auto()
    """Of each `Place`, not of a pair: the ids of highest gain, best first."""
    LOSSES = auto()
    """`Subject.losses`."""
    REACHABLE_LOSSES = auto()
    """The same, NaN where no text encodes to the prompt."""


AT_ONCE = frozenset({Ask.TOKENS})
"""What is so little work that it is waited for."""


class Request(NamedTuple):
    """Asks something of some pairs; the answer has an entry for each, in order."""

    ask: Ask
    pairs: Sequence[Pair] | Sequence[Place]


Search = Generator[Request, Any, T]
"""Yields requests, is sent their answers, and returns what it found."""


class Answering(Protocol):
    """What answers requests: a `Subject`."""

    @property
    def lanes(self) -> Lanes:
        """How many searches it serves side by side."""

    def launched(self, ask: Ask, pairs: Sequence[Any]) -> Callable[[], Any]:
        """Begin with what was asked for; return what waits for it.

        It is an array or list with an entry for each pair.
        """


def lockstep(
    subject: Answering, searches: Iterable[Search[T]], lanes: Lanes | None = None
) -> Iterator[T]:
    """Run searches, so many side by side; yield their results as they end.

    A search is begun when there is room for it. Its result is that of running it
    alone: losses that rounding could swap are decided by `Subject.choice`.
    """
    waiting, lanes = iter(searches), lanes or subject.lanes
    first = list(islice(waiting, lanes.groups * lanes.width))
    parts = [first[i :: lanes.groups] for i in range(lanes.groups)]
    groups = [_Group(subject, lanes.width, part, waiting) for part in parts if part]
    while groups:
        for group in groups:
            yield from group.turn()
        groups = [group for group in groups if group.running]


def alone(subject: Answering, search: Search[T]) -> T:
    """Run one search by itself."""
    return next(lockstep(subject, [search]))


class _Group(Generic[T]):
    """Searches whose requests share passes."""

    def __init__(
        self,
        subject: Answering,
        width: int,
        first: Sequence[Search[T]],
        waiting: Iterator[Search[T]],
    ) -> None:
        self._subject, self._width, self._waiting = subject, width, waiting
        self._fetch: Callable[[], Mapping[Search[T], Any]] = lambda: dict.fromkeys(
            first
        )
        self.running: dict[Search[T], Request] = {}
        """What each search waits for."""

    def turn(self) -> Iterator[T]:
        """Advance those that are answered; leave the device with work for the group."""
        while True:
            yield from self._advanced(self._fetch())
            while begun := dict.fromkeys(islice(self._waiting, self._room)):
                yield from self._advanced(begun)
            if not self.running:
                return
            ask, self._fetch = self._launched()
            if ask not in AT_ONCE:
                return

    @property
    def _room(self) -> int:
        return self._width - len(self.running)

    def _advanced(self, answers: Mapping[Search[T], Any]) -> Iterator[T]:
        for search, answer in answers.items():
            try:
                self.running[search] = search.send(answer)
                continue
            except StopIteration as end:
                self.running.pop(search, None)
                result: T = end.value
            yield result

    def _launched(self) -> tuple[Ask, Callable[[], Mapping[Search[T], Any]]]:
        """Have those answered, by one call, who ask for what stands first in `Ask`."""
        first = min(request.ask for request in self.running.values())
        asking = {s: r.pairs for s, r in self.running.items() if r.ask == first}
        fetch = self._subject.launched(
            first, [x for own in asking.values() for x in own]
        )
        ends = list(accumulate(map(len, asking.values()), initial=0))

        def answers() -> dict[Search[T], Any]:
            answer = fetch()
            parts = zip(asking, pairwise(ends), strict=True)
            return {search: answer[a:b] for search, (a, b) in parts}

        return first, answers
