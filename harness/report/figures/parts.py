"""What a figure is made of, before any of it is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from harness.records import Estimate

Mark = Literal["line", "dashed", "dots", "rings", "bars"]
"""How a series is drawn; ``bars`` run from `low` to `x`, a row each."""
Numbers = Literal["plain", "whole", "share", "flops", "weight"]
"""How the numbers of an axis are written."""


class At(NamedTuple):
    """A point, with its interval along the axis that it is measured on."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """Points that belong together: a line with its band, or marks with intervals."""

    name: str
    points: Sequence[At]
    colour: int = 0
    """Equal numbers have equal colours throughout a figure."""
    mark: Mark = "line"


@dataclass(frozen=True)
class Axis:
    """An axis: what it shows, with the unit, and how."""

    label: str
    numbers: Numbers = "plain"
    scale: Literal["linear", "log", "symlog"] = "linear"


@dataclass(frozen=True)
class Panel:
    """A plot: one of several alike that make a figure."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    rows: Sequence[str] = ()
    """What the rows are, from above, where the y axis counts rows: 0, 1, ...

    Intervals are then along the x axis.
    """
    zero: bool = False
    """Whether to draw a line where the measured value is 0."""
    band: tuple[float, float] | None = None
    """Values that mean little, as those within the margin."""
    level: At | None = None
    """A mean with its interval, drawn across the panel."""


@dataclass(frozen=True)
class Figure:
    """A figure: panels side by side, and how to read them."""

    key: str
    """What programs call it."""
    title: str
    caption: str
    panels: Sequence[Panel]
    legend: bool = True
    """Whether the names of series have to be told."""

    @property
    def series(self) -> list[Series]:
        """A series of each name, for the legend."""
        named = {
            series.name: series for panel in self.panels for series in panel.series
        }
        return list(named.values())


def estimated(x: float, found: Estimate | None) -> Iterator[At]:
    """Yield the point of an estimate that has a value."""
    if found is not None and found.value is not None:
        yield At(x, found.value, *(found.interval or (None, None)))


def lying(row: float, found: Estimate | None) -> Iterator[At]:
    """Yield the point of an estimate that is shown along a row."""
    for _, value, low, high in estimated(row, found):
        yield At(value, row, low, high)


def only_filled(panels: Iterable[Panel]) -> list[Panel]:
    """Return the panels in which there is something, without their empty series."""
    found = []
    for panel in panels:
        series = [one for one in panel.series if one.points]
        if series:
            found.append(Panel(**{**vars(panel), "series": series}))
    return found
