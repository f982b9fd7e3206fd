"""JSON that says one thing only: no duplicate keys, no numbers that are not finite."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from harness.base import Problem

ModelT = TypeVar("ModelT", bound=pydantic.BaseModel)


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
        return None, [
            Problem(str(file), details["loc"], _sentence(details), line)
            for details in error.errors()
        ]
    except ValueError as error:
        return None, [unreadable(file, error, line or getattr(error, "lineno", None))]


def unreadable(file: Path, error: Exception, line: int | None = None) -> Problem:
    """Say that a file, or a line of it, cannot be read at all."""
    return Problem(str(file), (), f"cannot be read: {error}", line)


def parse_json(text: str) -> Any:
    """Parse strict JSON; ValueError says what is wrong."""
    try:
        return json.loads(
            text,
            parse_constant=_no_constant,
            parse_float=_finite,
            object_pairs_hook=_unique_keys,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _sentence(error: Any) -> str:
    """Say what is wrong, and what stands there where that is short."""
    message: str = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return "is unknown"
    if error["type"] == "missing":
        return "is missing"
    value = error["input"]
    if error["type"] == "value_error" or isinstance(value, dict | list):
        return message
    return f"{message}, not {json.dumps(value)[:80]}"


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
