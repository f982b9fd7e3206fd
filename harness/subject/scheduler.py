"""Searches ask, the subject answers: many of them advance in step and share passes.

A search is a generator: it yields a request, is sent the answer, and returns what it
found. `lockstep` answers the requests of many searches, those that ask for the same by
one call, and lets a device work for some while others are advanced. What comes out of a
search never depends on which others run beside it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from enum import IntEnum, auto
from itertools import accumulate, islice, pairwise
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.base import Ids

T = TypeVar("T")
Pair = tuple["Ids", "Ids"]
"""A prompt, and the reference that is scored after it."""


class Lanes(NamedTuple):
    """How many searches advance side by side, and whose requests share passes."""

    searches: int = 32
    """Searches that are under way."""
    fewest: int = 32
    """Requests of so many fill a pass; fewer wait while the device has other work."""
    most: int = 32
    """Requests of so many go together, at most: the others can be advanced then."""
    ahead: int = 1
    """How often the device is given work before what it did first is waited for."""


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


class Slopes(NamedTuple):
    """Where a prompt may change, and what its gradient says of writing there."""

    tokens: Ids
    """The ids [n] that stand there."""
    positions: Ids
    """Where that is [n]."""
    gradient: Tensor
    """dL/d(embedding output) of the whole prompt, [N, d]."""
    k: int
    """How many flips to say, at most."""
    near: Tensor | None = None
    """Which ids [N, V] may stand at each position, besides what is allowed."""


class Ranked(NamedTuple):
    """Flips of highest gain, best first."""

    positions: Ids
    tokens: Ids
    gains: NDArray[np.float64]
    """To first order, in nats/token."""


class Draft(NamedTuple):
    """A prompt with changes that may have broken words."""

    prompt_ids: Ids
    since: Ids
    """What it was before: as long, and a text's."""


class Ask(IntEnum):
    """What a search may ask of pairs; what stands first here is answered first.

    Losses stand last: when their turn comes every search waits for some, however many
    near ties it had to decide and whether it took a gradient, and one call scores all.
    """

    DECIDING_LOSSES = auto()
    """What decides near ties: in float32, and of a pair the same beside any others."""
    GRADIENTS = auto()
    """`Subject.gradients`."""
    NORMS = auto()
    """Of each gradient [n, d], not of a pair: its norm [n] at each token."""
    TOKENS = auto()
    """Of each `Place`, not of a pair: the ids of highest gain, best first."""
    FLIPS = auto()
    """Of each `Slopes`, not of a pair: the flips of highest gain, `Ranked`."""
    MENDED = auto()
    """Of each `Draft`, not of a pair: `Vocabulary.mended`."""
    LOSSES = auto()
    """`Subject.losses`."""
    REACHABLE_LOSSES = auto()
    """The same, NaN where no text encodes to the prompt."""


AT_ONCE = (Ask.NORMS, Ask.MENDED)
"""What is so little work that it is waited for."""
SOON = (Ask.TOKENS, Ask.FLIPS)
"""What waits for no pass, and yet for so long that one is waited for meanwhile."""


class Request(NamedTuple):
    """Asks something of some pairs; the answer has an entry for each, in order."""

    ask: Ask
    pairs: (
        Sequence[Pair]
        | Sequence[Tensor]
        | Sequence[Place]
        | Sequence[Slopes]
        | Sequence[Draft]
    )


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
    return _Running(subject, searches, lanes or subject.lanes).results()


def alone(subject: Answering, search: Search[T]) -> T:
    """Run one search by itself."""
    return next(lockstep(subject, [search]))


class _Running(Generic[T]):
    """Searches that are under way."""

    def __init__(
        self, subject: Answering, searches: Iterable[Search[T]], lanes: Lanes
    ) -> None:
        self._subject, self._lanes = subject, lanes
        self._to_begin, self._running = map(_remembering, searches), 0
        self._asking: dict[Search[T], Request] = {}
        """Those whose requests the device was not given yet."""
        self._launched: deque[Callable[[], dict[Search[T], Any]]] = deque()
        """What waits for the answers to the others, in the order of the device."""
        self._soon: list[Callable[[], dict[Search[T], Any]]] = []
        """What waits for the answers that will be there before these."""

    def results(self) -> Iterator[T]:
        """Yield the results of all searches as they end."""
        while True:
            while begun := self._begun():
                yield from self._advanced(begun)
            while asked := self._next():
                self._launched.append(self._launch(*asked))
            soon, self._soon = self._soon, []
            if not self._launched and not soon:
                return
            if self._launched and not (soon and self._soon_idle):
                yield from self._advanced(self._launched.popleft()())
            for answers in soon:
                yield from self._advanced(answers())

    @property
    def _soon_idle(self) -> bool:
        """Whether the device would have nothing to do once what it does is done."""
        return len(self._launched) < min(2, self._lanes.ahead)

    def _begun(self) -> dict[Search[T], Any]:
        room = self._lanes.searches - self._running
        begun: dict[Search[T], Any] = dict.fromkeys(islice(self._to_begin, room))
        self._running += len(begun)
        return begun

    def _next(self) -> tuple[Ask, int] | None:
        """Return what to ask next, for how many; None while the device has enough.

        What stands first in `Ask` of what fills a pass, and no more than fills passes;
        of the rest, where the device would soon have nothing to do.
        """
        lanes, counts = self._lanes, Counter(r.ask for r in self._asking.values())
        if not counts or len(self._launched) >= lanes.ahead:
            return None
        full = [ask for ask in counts if counts[ask] >= lanes.fewest]
        if full:
            count = min(counts[min(full)], lanes.most)
            return min(full), count - count % lanes.fewest
        # Those that get their answers soon may fill what would be a smaller pass.
        least = self._soon_idle and not self._soon
        return (min(counts), lanes.most) if least else None

    def _launch(self, ask: Ask, most: int) -> Callable[[], dict[Search[T], Any]]:
        """Have searches that ask the same answered by one call; `most` are, at most."""
        same = (one for one, request in self._asking.items() if request.ask == ask)
        asking = {one: self._asking[one].pairs for one in islice(same, most)}
        for one in asking:
            del self._asking[one]
        fetch = self._subject.launched(ask, [x for own in asking.values() for x in own])
        ends = list(accumulate(map(len, asking.values()), initial=0))

        def answers() -> dict[Search[T], Any]:
            answer = fetch()
            parts = zip(asking, pairwise(ends), strict=True)
            return {search: answer[a:b] for search, (a, b) in parts}

        return answers

    def _advanced(self, answers: dict[Search[T], Any]) -> Iterator[T]:
        """Send answers to those who wait for them; yield the results of some."""
        while answers:
            for search, answer in answers.items():
                try:
                    self._asking[search] = search.send(answer)
                    continue
                except StopIteration as end:
                    self._running -= 1
                    result: T = end.value
                yield result
            asked = {request.ask for request in self._asking.values()}
            for ask in asked.intersection(SOON):
                self._soon.append(self._launch(ask, len(self._asking)))
            at_once = asked.intersection(AT_ONCE)
            answers = self._launch(min(at_once), len(self._asking))() if at_once else {}


def relayed(search: Search[T], relay: Callable[[Request], Search[Any]]) -> Search[T]:
    """Run a search within another, where `relay` answers what it asks for."""
    answer = None
    while True:
        try:
            request = search.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        answer = yield from relay(request)


def _remembering(search: Search[T]) -> Search[T]:
    """Run a search, for which no pair is scored twice to decide near ties.

    What is found of a pair does not change, and what a search stands at is in most of
    its ties.
    """
    known: dict[tuple[bytes, bytes], float] = {}

    def relay(request: Request) -> Search[Any]:
        if request.ask != Ask.DECIDING_LOSSES:
            return (yield request)
        pairs = cast("Sequence[Pair]", request.pairs)
        keys = [(prompt.tobytes(), own.tobytes()) for prompt, own in pairs]
        new = {k: pair for k, pair in zip(keys, pairs, strict=True) if k not in known}
        if new:
            losses = yield Request(request.ask, list(new.values()))
            known.update(zip(new, losses, strict=True))
        return np.array([known[key] for key in keys])

    return relayed(search, relay)
