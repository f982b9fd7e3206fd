"""The published JSON Schemas (draft 2020-12), generated from the pydantic models.

``python -m harness.records.schemas`` writes them anew.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pydantic

FOLDER = Path(__file__).parent / "published"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
KINDS = {
    "record": "record.v1.json",
    "sample": "sample.v1.json",
    "verdicts": "verdicts.v1.json",
}
"""What has a schema, and the file it is in."""


@cache
def load(kind: str) -> dict[str, Any]:
    """Return the published schema of ``record``, ``sample`` or ``verdicts``."""
    text = (FOLDER / KINDS[kind]).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def generate(kind: str) -> dict[str, Any]:
    """Return the schema as the models define it now."""
    from harness.records.record import Record
    from harness.records.samples import SampleRow
    from harness.records.verdicts import Verdicts

    models: dict[str, type[pydantic.BaseModel]] = {
        "record": Record,
        "sample": SampleRow,
        "verdicts": Verdicts,
    }
    schema = models[kind].model_json_schema()
    return {"$schema": DIALECT, **_without_titles(schema)}


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
    from harness.base import write_json

    for kind, file in KINDS.items():
        write_json(FOLDER / file, generate(kind))
