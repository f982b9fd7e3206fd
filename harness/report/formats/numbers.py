"""Round numbers, as late as possible: when they are shown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from harness.report.content import Kind, Number


@dataclass(frozen=True)
class Style:
    """How numbers of a kind are shown."""

    decimals: int = 3
    """Decimals where nothing says how sure the number is."""
    least: int = 1
    """Decimals shown at least, where something does."""
    scale: float = 1.0
    unit: str = ""


STYLES: dict[Kind, Style] = {
    "number": Style(decimals=4),
    "perplexity": Style(decimals=2, least=1),
    "nats": Style(decimals=3, least=2),
    "fraction": Style(decimals=1, least=1, scale=100, unit="%"),
    "share": Style(decimals=0, least=0, scale=100, unit="%"),
    "seconds": Style(decimals=1),
    "size": Style(decimals=1),
}
MOST_DECIMALS = 6
LONGEST = 1e6
"""From here on, numbers are shown by _powers of ten."""


class Parts(NamedTuple):
    """A rounded number in parts, each empty where there is nothing to say."""

    value: str
    spread: str
    """The standard deviation or the interval."""
    unit: str
    seeds: str
    """How many seeds it rests on, where some are missing."""


def number_text(number: Number) -> str:
    """Return a rounded number; decimals follow the first digit that is uncertain."""
    return " ".join(filter(None, number_parts(number))) + number.mark


def number_parts(number: Number) -> Parts:
    """Return a rounded number in parts; none has the mark of the number."""
    special = _SPECIAL.get(number.kind)
    if special is not None:
        return Parts(special(number.value), "", "", "")
    style = STYLES[number.kind]
    decimals = _decimals(number, style)

    def fixed(value: float, signed: bool = number.signed) -> str:
        return _fixed(value * style.scale, decimals, signed)

    spread = seeds = ""
    if number.std is not None:
        spread = f"± {fixed(number.std, signed=False)}"
    if number.interval is not None:
        spread = f"[{', '.join(map(fixed, number.interval))}]"
    if number.n is not None and number.planned not in (None, number.n):
        seeds = f"(n={number.n} of {number.planned})"
    return Parts(fixed(number.value), spread, style.unit, seeds)


def _fixed(value: float, decimals: int, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if abs(value) >= LONGEST:
        return _powers(value, sign)
    rounded = round(value, decimals) + 0.0  # no "-0.0"
    return f"{rounded:{sign},.{decimals}f}"


def _powers(value: float, sign: str = "") -> str:
    """Show a number as ``4.21e9``."""
    mantissa, _, exponent = f"{value:{sign}.2e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _decimals(number: Number, style: Style) -> int:
    width = number.std
    if number.interval is not None:
        width = (number.interval[1] - number.interval[0]) / 2
    if not width:
        digits_before = len(str(int(abs(number.value * style.scale))))
        return max(0, min(style.decimals, 5 - digits_before))
    rounded = float(f"{width * style.scale:.0e}")
    first_digit = -math.floor(math.log10(rounded))
    if first_digit < -1:
        return 0
    return min(MOST_DECIMALS, max(style.least, first_digit))


def _parameters(value: float) -> str:
    """Show a parameter count as ``1.4B`` or ``14M``."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            scaled = value / size
            return f"{scaled:.0f}{letter}" if scaled >= 10 else f"{scaled:.1f}{letter}"
    return f"{value:.0f}"


_SPECIAL: dict[Kind, Callable[[float], str]] = {
    "parameters": _parameters,
    "flops": _powers,
    "weight": lambda value: f"{value:.2g}",
    "count": lambda value: f"{value:,.0f}",
    "p": lambda value: "<0.001" if value < 0.001 else f"{value:.3f}",
}
