"""Advance the searches of many examples together, so that their passes share batches.

A search is a generator: it yields what it needs of the subject, a request, and is sent
the answer. `lockstep` collects the requests of many searches and answers them at once.
What comes out of a search never depends on which others run beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from harness.subject import together

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.base import Ids
    from harness.subject import Subject


def shares(total: int, parts: int) -> list[int]:
    """Split a number into so many that differ by 1 at most."""
    ends = [total * i // parts for i in range(parts + 1)]
    return [after - before for before, after in pairwise(ends)]


T = TypeVar("T")

WIDTH = 32
"""Searches that advance together: enough to fill a batch with few candidates each."""


@dataclass(frozen=True)
class Losses:
    """Asks for the loss [C] of one reference after each of C prompts, nats/token."""

    prompts: Sequence[Ids]
    reference_ids: Ids
    reachable_only: bool = False
    """Whether it is NaN where no text encodes to the prompt."""


@dataclass(frozen=True)
class Gradients:
    """Asks for dL/d(embedding output) [n, d] at each of some prompts, as a list."""

    prompts: Sequence[Ids]
    reference_ids: Ids


@dataclass(frozen=True)
class Top:
    """Asks for the indices of the `k` highest losses, as `Subject.top` finds them."""

    prompts: Sequence[Ids]
    reference_ids: Ids
    losses: NDArray[np.float64]
    k: int
    lowest: bool = False


Request = Losses | Gradients | Top
Search = Generator[Request, Any, T]
"""Yields requests, is sent their answers, and returns what it found."""


def lockstep(
    subject: Subject, searches: Iterable[Search[T]], width: int | None = None
) -> Iterator[T]:
    """Run searches, `width` (or `WIDTH`) at a time; yield their results as they end.

    A search is begun when there is room for it. Its result is that of running it
    alone: losses that rounding could swap are decided by `Top`.
    """
    width, waiting = width or WIDTH, iter(searches)
    running: list[_Running[T]] = []
    while True:
        moved = [_Running(one) for one in islice(waiting, width - len(running))]
        answers = [None] * len(moved)
        if not moved:
            moved, running = running, []
            answers = _answers(subject, [one.request for one in moved])
        if not moved:
            return
        for one, answer in zip(moved, answers, strict=True):
            if one.advance(answer):
                running.append(one)
            else:
                yield one.result


def alone(subject: Subject, search: Search[T]) -> T:
    """Run one search by itself."""
    return next(lockstep(subject, [search]))


class _Running(Generic[T]):
    """A search under way: its request, or what it returned."""

    request: Request
    result: T

    def __init__(self, search: Search[T]) -> None:
        self._search = search

    def advance(self, answer: Any) -> bool:
        """Send an answer, None at first; say whether there is another request."""
        try:
            self.request = self._search.send(answer)
        except StopIteration as end:
            self.result = end.value
            return False
        return True


@dataclass
class Spent:
    """The passes that a search has asked for.

    Near ties that are scored again are left out, and checks of success.
    """

    passes: int = 0
    """Forward passes of one sequence, those that a gradient needs included."""
    gradients: int = 0
    """Backward passes of one sequence."""

    def count(self, search: Search[T]) -> Search[T]:
        """Run a search within another, counting what it asks for."""
        answer = None
        while True:
            try:
                request = search.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            self._add(request)
            answer = yield request

    def _add(self, request: Request) -> None:
        match request:
            case Losses(prompts):
                self.passes += len(prompts)
            case Gradients(prompts):
                self.passes += len(prompts)
                self.gradients += len(prompts)


def _answers(subject: Subject, requests: Sequence[Request]) -> list[Any]:
    """Answer requests, those of a kind by one call."""
    answers: list[Any] = [None] * len(requests)
    calls: dict[Any, list[int]] = {}
    choices: dict[int, Any] = {}
    for i, request in enumerate(requests):
        match request:
            case Losses(reachable_only=only):
                calls.setdefault((subject.losses, only), []).append(i)
            case Gradients():
                calls.setdefault((subject.gradients, False), []).append(i)
            case Top(prompts, reference, losses, k, lowest):
                choices[i] = subject.choice(
                    prompts, reference, losses, k, lowest=lowest
                )
    for i, chosen in zip(choices, together([*choices.values()]), strict=True):
        answers[i] = chosen
    for (call, reachable_only), indices in calls.items():
        if reachable_only:
            call = partial(call, reachable_only=True)
        parts = _merged(call, [requests[i] for i in indices])
        for i, part in zip(indices, parts, strict=True):
            answers[i] = part
    return answers


def _merged(
    call: Callable[[Sequence[Ids], Sequence[Ids]], Any], requests: Sequence[Request]
) -> Iterator[Any]:
    """Answer requests by one call; yield each one's part."""
    prompts = [prompt for request in requests for prompt in request.prompts]
    references = [r.reference_ids for r in requests for _ in r.prompts]
    values, start = call(prompts, references), 0
    for request in requests:
        yield values[start : start + len(request.prompts)]
        start += len(request.prompts)
