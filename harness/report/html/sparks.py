"""Small drawings beside numbers: a value and its interval on the scale of others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.records import ArmVerdict
from harness.report.content import Number
from harness.report.figures.parts import Series

COLOUR = "var(--c0)"


@dataclass(frozen=True)
class Scale:
    """A scale from the lowest bound of some numbers to the highest."""

    low: float
    high: float
    width: float

    def at(self, value: float) -> str:
        """Return where a value is drawn."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return f"{share * self.width:.1f}"


def spark(number: Number, scale: Scale) -> str:
    """Return a number's interval as SVG, with a mark at 0 if it is a difference."""
    assert number.interval is not None
    low, high = map(scale.at, number.interval)
    parts = [
        f'<path d="M{low} 5H{high}" stroke="{COLOUR}" stroke-width="1.5"/>',
        f'<circle cx="{scale.at(number.value)}" cy="5" r="2.4" fill="{COLOUR}"/>',
    ]
    if number.signed:
        zero = scale.at(0)
        parts.insert(0, f'<path d="M{zero} 0V10" stroke="var(--muted)"/>')
    inside = "".join(parts)
    return f'<svg class="spark" viewBox="0 0 56 10" aria-hidden="true">{inside}</svg>'


def spark_scale(numbers: Iterable[Number]) -> Scale:
    """Return the scale that numbers with intervals share."""
    found = list(numbers)
    bounds = [x for number in found for x in number.interval or ()]
    if any(number.signed for number in found):
        bounds.append(0.0)
    return Scale(min(bounds), max(bounds), 56.0)


def forest(found: ArmVerdict, scale: Scale) -> str:
    """Return the difference of an arm as SVG, with the margin and 0 behind it."""
    known = found.difference
    assert known is not None
    left, right = scale.at(-known.margin_nats), scale.at(known.margin_nats)
    width = float(right) - float(left)
    zero, value = scale.at(0), scale.at(known.value)
    parts = [
        f'<rect x="{left}" y="2" width="{width:.1f}" height="22" fill="var(--shade)"/>',
        f'<path d="M{zero} 0V26" stroke="var(--muted)"/>',
        f'<circle cx="{value}" cy="13" r="4" fill="var(--tone, var(--muted))"/>',
    ]
    if known.interval is not None:
        low, high = map(scale.at, known.interval)
        stroke = 'stroke="var(--tone, var(--muted))" stroke-width="2"'
        parts.append(f'<path d="M{low} 13H{high}M{low} 9v8M{high} 9v8" {stroke}/>')
    inside = "".join(parts)
    return f'<svg class="forest" viewBox="0 0 384 26" aria-hidden="true">{inside}</svg>'


def forest_scale(found: Iterable[ArmVerdict]) -> Scale:
    """Return the scale that the differences of all arms share, 0 in its middle."""
    bounds = [
        abs(x)
        for one in found
        if (known := one.difference) is not None
        for x in (*(known.interval or ()), known.value, known.margin_nats)
    ]
    most = 1.05 * max(bounds, default=1.0)
    return Scale(-most, most, 384.0)


def legend_key(series: Series) -> str:
    """Return what a legend shows of a series."""
    colour = f"var(--c{series.colour % 8})"
    if series.mark == "bars":
        return f'<rect x="4" y="0" width="14" height="10" fill="{colour}"/>'
    if series.mark == "dots":
        return f'<circle cx="11" cy="5" r="4" fill="{colour}"/>'
    if series.mark == "rings":
        return f'<circle cx="11" cy="5" r="3.5" fill="none" stroke="{colour}"/>'
    dashes = ' stroke-dasharray="5 3"' if series.mark == "dashed" else ""
    return f'<path d="M0 5H22" stroke="{colour}" stroke-width="2"{dashes}/>'
