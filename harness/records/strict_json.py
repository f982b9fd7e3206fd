"""JSON that says one thing only: no duplicate keys, no numbers that are not finite."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import pydantic


def parse_json(text: str) -> Any:
    """Parse strict JSON; ValueError says what is wrong."""
    return json.loads(
        text,
        parse_constant=_no_constant,
        parse_float=_finite,
        object_pairs_hook=_unique_keys,
    )


class Fault(NamedTuple):
    """Something that a record must not hold."""

    path: tuple[str | int, ...]
    """The keys that lead to it."""
    message: str
    """What is wrong, in a sentence."""

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path)) or 'record'}: {self.message}"


def readable_errors(error: pydantic.ValidationError) -> list[str]:
    """Return a sentence for each fault that pydantic found."""
    return [str(Fault(e["loc"], e["msg"])) for e in error.errors()]


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is beyond the range of floats")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return found
