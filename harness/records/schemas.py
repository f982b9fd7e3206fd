"""The published JSON Schemas (draft 2020-12), generated from the pydantic models.

``python -m harness.records.schemas`` writes them anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from harness.base import Problem, write_json
from harness.records.record import SCHEMA_VERSION, Record
from harness.records.report import REPORT_VERSION, ReportDocument
from harness.records.samples import SampleRow
from harness.records.verdicts import VERDICTS_VERSION, Verdicts

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

Keys = tuple[str | int, ...]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MODELS: dict[str, type[pydantic.BaseModel]] = {
    "record": Record,
    "sample": SampleRow,
    "verdicts": Verdicts,
    "report": ReportDocument,
}
"""What has a schema, by the name that `harness schema` knows it by."""
_VERSIONS = {"verdicts": VERDICTS_VERSION, "report": REPORT_VERSION}
"""Of schemas that have one of their own."""


def file_of(kind: str) -> Path:
    """Return the file of the published schema of one of `MODELS`."""
    version = _VERSIONS.get(kind, SCHEMA_VERSION)
    return Path(__file__).parent / "published" / f"{kind}.v{version}.json"


@cache
def load(kind: str) -> dict[str, Any]:
    """Return the published schema of one of `MODELS`."""
    schema: dict[str, Any] = json.loads(file_of(kind).read_text(encoding="utf-8"))
    return schema


def violations(kind: str, document: Any, file: Path) -> Iterator[Problem]:
    """Hold JSON values against a published schema; numbers must be finite, too."""
    from jsonschema.exceptions import best_match

    validator = _validator(kind)
    errors = sorted(validator.iter_errors(document), key=lambda e: [*map(str, e.path)])
    for error in errors:
        closest = best_match([error]) or error
        path = tuple(closest.absolute_path)
        yield Problem(str(file), path, _shortened(closest.message))
    for path, number in _not_finite(document):
        yield Problem(str(file), path, f"{number} is not finite")


def generate(kind: str) -> dict[str, Any]:
    """Return the schema as the model defines it now."""
    schema = MODELS[kind].model_json_schema()
    return {"$schema": DIALECT, **_without_titles(schema)}


@cache
def _validator(kind: str) -> Draft202012Validator:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(load(kind))


def _shortened(message: str, length: int = 200) -> str:
    return message if len(message) <= length else f"{message[: length - 3]}..."


def _not_finite(value: Any, path: Keys = ()) -> Iterator[tuple[Keys, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield path, value
    elif isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in entries:
            yield from _not_finite(item, (*path, key))


def _without_titles(node: Any) -> Any:
    """Drop the titles that pydantic makes from names: they say nothing new."""
    if isinstance(node, list):
        return [_without_titles(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _without_titles(value)
        for key, value in node.items()
        if key != "title" or not isinstance(value, str)
    }


if __name__ == "__main__":
    for kind in MODELS:
        write_json(file_of(kind), generate(kind))
