"""The margin: how small a difference between two arms counts as none."""

from __future__ import annotations

from collections.abc import Iterable

from harness.base import Strict


class Margin(Strict):
    """How small a difference from the reference arm's dL counts as none.

    One of the two is stated, the other null.
    """

    relative: float | None = None
    """As a share of the reference arm's dL."""
    nats: float | None = None
    """In nats/token."""

    @classmethod
    def of(cls, stated: str | float) -> Margin:
        """Read what a suite states: a percentage, as ``10 %``, or nats/token."""
        if isinstance(stated, str):
            return cls(relative=float(stated.rstrip("% ")) / 100)
        return cls(nats=float(stated))

    @property
    def parts(self) -> tuple[float, float]:
        """A share of the reference arm's dL, and nats: 0 for what is not stated."""
        return self.relative or 0.0, self.nats or 0.0

    def __str__(self) -> str:
        """Say it as a suite states it, with its unit."""
        if self.relative is not None:
            return f"{100 * self.relative:g} %"
        return f"{self.nats:g} nats/token"


def margin_change(margin: Margin, stated: Iterable[Margin | None]) -> str | None:
    """Say that results were there before this margin; None where none were.

    `stated` are the margins of a run's records, each written before its results. The
    sentence begins with how many records state another one, or none.
    """
    others = [str(other) if other else "none" for other in stated if other != margin]
    if not others:
        return None
    count = "1 record" if len(others) == 1 else f"{len(others)} records"
    before = " or ".join(dict.fromkeys(others))
    return f"margin changed after {count}, from {before} to {margin}"
