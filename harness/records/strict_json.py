"""JSON that says one thing only: no duplicate keys, no numbers that are not finite."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from harness.base import LARGEST_WHOLE, Problem, shortened

ModelT = TypeVar("ModelT", bound=pydantic.BaseModel)
DEEPEST = 100
MOST_PROBLEMS = 50
_TOO_DEEP = f"it is nested more than {DEEPEST} levels deep"
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_SPACE = b" \t\r\n"
_LONG = b"0" * 19
_LONG_WHOLE = tuple(before + _LONG for before in (b"[", b":", b",", b"-"))
_NO_KEY = bytes(x for x in range(256) if x not in b'":')
_LONG_EXPONENT = (b"e000", b"e+000")


def parse_model(
    model: type[ModelT], text: str, file: Path, line: int | None = None
) -> tuple[ModelT | None, list[Problem], Any]:
    """Parse strict JSON into a model; return it, or None and all that is wrong.

    Last come the JSON values, where there is a model. Nothing is converted: neither
    ``"1"`` nor ``true`` is a number, and ``1.0`` is no whole number. Problems name the
    file, and the line where the text is one line of it.
    """
    try:
        # pydantic alone would let NaN pass where anything may stand.
        value = parse_json(text)
        return model.model_validate_json(text, strict=True), [], value
    except pydantic.ValidationError as error:
        found = [
            Problem(str(file), details["loc"], _sentence(details), line)
            for details in error.errors()
        ]
        if len(found) > MOST_PROBLEMS:
            more = f"{len(found) - MOST_PROBLEMS:,} more values are wrong"
            found[MOST_PROBLEMS:] = [Problem(str(file), (), more, line)]
        return None, found, None
    except ValueError as error:
        line = line or getattr(error, "lineno", None)
        return None, [unreadable(file, error, line)], None


def parse_line(
    model: type[ModelT],
    line: bytes,
    file: Path,
    number: int,
    keys_of: Callable[[ModelT], int | None],
) -> tuple[ModelT | None, list[Problem]]:
    """Parse a line of a file as `parse_model` does, in a fourth of the time.

    `keys_of` says how many keys the JSON of a model has; or None where there is more to
    look at than whether one occurs twice, as its whole numbers or what has no type are
    not all plain (`are_plain`). Raises UnicodeDecodeError for what is no UTF-8.
    """
    with contextlib.suppress(pydantic.ValidationError):
        found = model.model_validate_json(line, strict=True)
        # A text may look as if it had more keys, and so is looked at closely. Of a key
        # that occurs twice, pydantic has the last.
        if keys_of(found) == line.translate(None, _NO_KEY).count(b'":'):
            return found, []
    return parse_model(model, line.decode(), file, number)[:2]


def are_plain(values: Iterable[Any], *, lists: bool = True) -> bool:
    """Say whether values are surely what `parse_json` lets pass: lists at most.

    Not so are lists in lists, and numbers that are not finite or beyond 64 bits.
    """
    for value in values:
        kind = type(value)
        if kind is int or kind is float:
            if not -LARGEST_WHOLE <= value <= LARGEST_WHOLE:
                return False
        elif kind is list:
            if not (lists and are_plain(value, lists=False)):
                return False
        elif kind is not str and kind is not bool and value is not None:
            return False
    return True


def unreadable(file: Path, error: Exception, line: int | None = None) -> Problem:
    """Say that a file, or a line of it, cannot be read at all."""
    return Problem(str(file), (), f"cannot be read: {error}", line)


def parse_json(text: str) -> Any:
    """Parse strict JSON; ValueError says what is wrong."""
    # To look at each number takes time, and they are seldom so large.
    large = _may_be_large(_bare(text.encode(errors="replace")))
    try:
        value = json.loads(
            text,
            parse_constant=_no_constant,
            parse_float=_finite if large else None,
            object_pairs_hook=_unique_keys,
            parse_int=_whole if large else None,
        )
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    if text.count("[") + text.count("{") > DEEPEST and _is_too_deep(value):
        raise ValueError(_TOO_DEEP)
    if _HALF.search(text) and _holds_half(value):
        raise ValueError("it holds half a character, which no text can hold")
    return value


def _bare(text: bytes) -> bytes:
    """Return JSON without white space, and with zeros for all digits."""
    return text.translate(_DIGITS, _SPACE)


def _may_be_large(bare: bytes) -> bool:
    """Say whether a number may have 19 digits before its point, or an exponent of 3."""
    if _LONG in bare and (
        bare.startswith(_LONG) or any(x in bare for x in _LONG_WHOLE)
    ):
        return True
    return any(x in bare for x in _LONG_EXPONENT)


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
