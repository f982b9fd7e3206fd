"""The published schemas are what the models say."""

import json
from pathlib import Path

import jsonschema
import pytest

from harness.records import SampleRow, schemas, summarise_attack
from tests.run_fixtures import sample_row


@pytest.mark.parametrize("kind", sorted(schemas.MODELS))
def test_the_files_are_up_to_date_and_describe_every_field(kind):
    text = schemas.file_of(kind).read_text()
    made = json.loads(json.dumps(schemas.generate(kind)))
    assert json.loads(text) == made, "run `python -m harness.records.schemas`"
    for part in (made, *made.get("$defs", {}).values()):
        for name, field in part.get("properties", {}).items():
            assert "description" in field or "$ref" in field, name


@pytest.mark.parametrize(
    "change",
    [
        {"status": "skipped"},
        {"clean_loss": None},
        {"adversarial_prompt_ids": None},
        {"text_reachable": None},
        {"status": "error"},
        {"status": "error", "delta_loss": None},
        {"status": "error", "error": "no luck"},
        {"delta_loss": None},
        {"example_id": 3},
        {"reference_ids": [1.5]},
    ],
)
def test_schema_and_model_refuse_the_same_rows(change):
    good, failed = (
        sample_row(3, 2.5, 0.0 if error else 0.4, error=error).model_dump(mode="json")
        for error in (False, True)
    )
    validator = jsonschema.Draft202012Validator(schemas.load("sample"))
    assert validator.is_valid(good)
    assert validator.is_valid(failed)
    assert not validator.is_valid(good | change)
    with pytest.raises(ValueError, match="validation error"):
        SampleRow.model_validate(good | change, strict=True)


def test_the_page_on_records_names_every_field():
    page = (Path(__file__).parents[2] / "docs" / "records.md").read_text()
    record = schemas.load("record")
    estimate, diagnostic = (record["$defs"][x] for x in ("Estimate", "Diagnostic"))
    for schema in (record, estimate, diagnostic, schemas.load("sample")):
        missing = [name for name in schema["properties"] if f"`{name}`" not in page]
        assert missing == []
    for name in summarise_attack([], 0.15):
        assert f"`{name}`" in page
