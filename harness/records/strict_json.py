"""JSON that says one thing only: no duplicate keys, no numbers that are not finite."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from harness.base import LARGEST_WHOLE, Problem, shortened

ModelT = TypeVar("ModelT", bound=pydantic.BaseModel)
DEEPEST = 100
MOST_PROBLEMS = 50
_TOO_DEEP = f"it is nested more than {DEEPEST} levels deep"
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_LONG = re.compile(r"\d{19}")


def parse_model(
    model: type[ModelT], text: str, file: Path, line: int | None = None
) -> tuple[ModelT | None, list[Problem]]:
    """Parse strict JSON into a model; return it, or None and all that is wrong.

    Nothing is converted: neither ``"1"`` nor ``true`` is a number, and ``1.0`` is no
    whole number. Problems name the file, and the line where the text is one line of it.
    """
    try:
        parse_json(text)  # pydantic alone would let NaN pass where anything may stand
        return model.model_validate_json(text, strict=True), []
    except pydantic.ValidationError as error:
        found = [
            Problem(str(file), details["loc"], _sentence(details), line)
            for details in error.errors()
        ]
        if len(found) > MOST_PROBLEMS:
            more = f"{len(found) - MOST_PROBLEMS:,} more values are wrong"
            found[MOST_PROBLEMS:] = [Problem(str(file), (), more, line)]
        return None, found
    except ValueError as error:
        return None, [unreadable(file, error, line or getattr(error, "lineno", None))]


def unreadable(file: Path, error: Exception, line: int | None = None) -> Problem:
    """Say that a file, or a line of it, cannot be read at all."""
    return Problem(str(file), (), f"cannot be read: {error}", line)


def parse_json(text: str) -> Any:
    """Parse strict JSON; ValueError says what is wrong."""
    try:
        value = json.loads(
            text,
            parse_constant=_no_constant,
            parse_float=_finite,
            object_pairs_hook=_unique_keys,
            # To look at each number takes time, and they are seldom so long.
            parse_int=_whole if _LONG.search(text) else None,
        )
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    if text.count("[") + text.count("{") > DEEPEST and _is_too_deep(value):
        raise ValueError(_TOO_DEEP)
    if _HALF.search(text) and _holds_half(value):
        raise ValueError("it holds half a character, which no text can hold")
    return value


def _holds_half(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        parts = (x.values() if isinstance(x, dict) else x for x in level)
        level = [x for part in parts for x in part if isinstance(x, dict | list)]
        if not level:
            return False
    return True


def _sentence(error: Any) -> str:
    """Say what is wrong, and what stands there where that is short."""
    message: str = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return "is unknown"
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "json_invalid":
        return message
    value = error["input"]
    if error["type"] == "value_error" or isinstance(value, dict | list):
        return message
    return f"{message}, not {shortened(json.dumps(value))}"


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is beyond the range of floats")
    return value


def _whole(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > LARGEST_WHOLE:
        raise ValueError(f"{shortened(text)} is beyond the range of 64 bits")
    return int(text)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {shortened(twice)!r} occurs twice")
    return found
