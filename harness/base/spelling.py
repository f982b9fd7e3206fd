"""How times, rates and sizes are spelt for a person, wherever one reads them."""

from __future__ import annotations

GIB = 2**30
"""Bytes in a GiB."""
_MINUTE_S = 60
_HOUR_S = 3600


def spell_rate(per_s: float, unit: str) -> str:
    """Return a rate in words, by the minute where it is slow."""
    if per_s >= 1:
        return f"{per_s:,.0f} {unit}/s"
    return f"{per_s * _MINUTE_S:.1f} {unit}/min"


def spell_seconds(seconds: float) -> str:
    """Return a time span in words, as ``1 h 05 min``, ``12 min`` or ``40 s``."""
    whole = round(seconds)
    if whole < 2 * _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{round(whole / _MINUTE_S)} min"
    hours, rest = divmod(whole, _HOUR_S)
    return f"{hours} h {rest // _MINUTE_S:02} min"


def spell_size(size: float) -> str:
    """Return a number of bytes as ``21.3 GiB``."""
    return f"{size / GIB:.1f} GiB"
