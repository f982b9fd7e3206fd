"""What a search has asked for, within the search: its trace says so at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from harness.subject import Ask, relayed

if TYPE_CHECKING:
    from harness.subject import Request, Search

T = TypeVar("T")


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

        def relay(request: Request) -> Search[Any]:
            self._add(request)
            return (yield request)

        return relayed(search, relay)

    def _add(self, request: Request) -> None:
        match request.ask:
            case Ask.GRADIENTS:
                self.passes += len(request.pairs)
                self.gradients += len(request.pairs)
            case Ask.LOSSES | Ask.REACHABLE_LOSSES:
                self.passes += len(request.pairs)
