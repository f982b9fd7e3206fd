"""The published schemas are what the models say."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from harness.records import SampleRow, schemas, summarise_attack
from tests.run_fixtures import sample_row


@pytest.mark.parametrize("kind", sorted(schemas.MODELS))
def test_the_files_are_up_to_date(kind: str) -> None:
    text = schemas.file_of(kind).read_text()
    made = json.loads(json.dumps(schemas.generate(kind)))
    assert json.loads(text) == made, "run `python -m harness.records.schemas`"


@pytest.mark.parametrize("kind", sorted(schemas.MODELS))
def test_every_field_is_described(kind: str) -> None:
    schema = schemas.load(kind)
    for part in (schema, *schema.get("$defs", {}).values()):
        for name, field in part.get("properties", {}).items():
            assert "description" in field or "$ref" in field, name


@pytest.mark.parametrize("error", [False, True])
def test_rows_fit_the_schema_of_samples(error: bool) -> None:
    row = sample_row(3, 2.5, 0.0 if error else 0.4, error=error)
    jsonschema.validate(
        row.model_dump(mode="json"),
        schemas.load("sample"),
        jsonschema.Draft202012Validator,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"status": "skipped"},
        {"clean_loss": None},
        {"adversarial_prompt_ids": None},
        {"text_reachable": None},
        {"status": "error"},
        {"status": "error", "delta_loss": 0.0},
        {"example_id": 3},
        {"reference_ids": [1.5]},
    ],
)
def test_schema_and_model_refuse_the_same_rows(change: dict[str, object]) -> None:
    row = {**sample_row(3, 2.5, 0.4).model_dump(mode="json"), **change}
    validator = jsonschema.Draft202012Validator(schemas.load("sample"))
    assert not validator.is_valid(row)
    with pytest.raises(ValueError, match="validation error"):
        SampleRow.model_validate(row, strict=True)


def test_the_page_on_records_names_every_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "records.md").read_text()
    record = schemas.load("record")
    estimate, diagnostic = (record["$defs"][x] for x in ("Estimate", "Diagnostic"))
    for schema in (record, estimate, diagnostic, schemas.load("sample")):
        missing = [name for name in schema["properties"] if f"`{name}`" not in page]
        assert missing == []
    for name in summarise_attack([], 0.15):
        assert f"`{name}`" in page
