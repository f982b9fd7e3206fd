"""Records on disk: read, checked, written whole or not at all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from harness.base import RecordError
from harness.records.record import SCHEMA_VERSION, Record
from harness.records.strict_json import Fault, parse_json

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator


def write_record(path: Path, record: Record) -> None:
    """Write a record atomically; one that breaks the schema raises RecordError."""
    from harness.base import write_json

    document = record.model_dump(mode="json")
    _refuse(path, faults(document))
    write_json(path, document)


def read_record(path: Path) -> Record:
    """Read a record; RecordError names the file, the path in it and the fault."""
    document = read_document(path)
    _refuse(path, faults(document))
    return Record.model_validate(document)


def read_document(path: Path) -> Any:
    """Read strict JSON: no NaN, no infinities, no key twice in an object."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: cannot be read: {error}") from error


def faults(document: Any) -> list[Fault]:
    """Return all that the schema and the models have against a record."""
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version != SCHEMA_VERSION:
        known = f"this harness reads version {SCHEMA_VERSION}"
        message = f"schema version {version}; {known}"
        return [Fault(("schema_version",), message)]
    found = [*_broken_rules(document), *_not_finite(document)]
    return found or _broken_models(document)


def _refuse(path: Path, found: list[Fault]) -> None:
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise RecordError(f"{path}: {found[0]}{more}")


def _broken_rules(document: Any) -> Iterator[Fault]:
    from jsonschema.exceptions import best_match

    errors = sorted(
        _validator().iter_errors(document), key=lambda e: list(map(str, e.path))
    )
    for error in errors:
        closest = best_match([error]) or error
        yield Fault(tuple(closest.absolute_path), _shortened(closest.message))


def _broken_models(document: Any) -> list[Fault]:
    """Return what only the models can say."""
    try:
        Record.model_validate(document)
    except pydantic.ValidationError as error:
        return [Fault(e["loc"], e["msg"]) for e in error.errors()]
    return []


def _not_finite(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Fault]:
    if isinstance(value, float) and not math.isfinite(value):
        yield Fault(path, f"{value} is not finite")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_finite(item, (*path, index))


@cache
def _validator() -> Draft202012Validator:
    from jsonschema import Draft202012Validator

    from harness.records import schemas

    return Draft202012Validator(schemas.load("record"))


def _shortened(message: str, length: int = 200) -> str:
    return message if len(message) <= length else f"{message[: length - 3]}..."
