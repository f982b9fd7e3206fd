"""Records: what may be written and read, and what readers are told."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from harness.base.errors import RecordError
from harness.records import files, schemas
from harness.records.record import Cost, Diagnostic
from harness.run.folder import RunFolder
from tests.run_fixtures import read_all


@pytest.fixture
def record_file(make_run: Callable[..., Path]) -> Path:
    return RunFolder(make_run(seeds=[1])).records("cell")[0]


def test_what_is_written_is_read_back_equal(make_run, tmp_path: Path) -> None:
    for record in read_all(make_run(seeds=[1], failed=("monotone.s1.random",))):
        path = tmp_path / record.id / "record.json"
        files.write_record(path, record)
        assert files.read_record(path) == record


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_are_not_finite_cannot_be_written(record_file, number) -> None:
    record = files.read_record(record_file)
    told = Diagnostic.model_construct(
        id="determinism", status="pass", value=number, n=1, unit="nats/token"
    )
    hidden = record.model_copy(update={"diagnostics": [told]})
    before = record_file.read_bytes()
    with pytest.raises(RecordError, match=r"diagnostics\.0\.value: .* is not finite"):
        files.write_record(record_file, hidden)
    assert record_file.read_bytes() == before


def test_the_published_schema_alone_accepts_what_is_written(make_run) -> None:
    """Others validate with the file, not with our models."""
    file = schemas.FOLDER / "record.v1.json"
    schema = json.loads(file.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for record in read_all(make_run(seeds=[1])):
        document = json.loads(record.model_dump_json())
        jsonschema.validate(document, schema, jsonschema.Draft202012Validator)


def test_costs_add_up_but_for_peak_memory() -> None:
    parts = [
        Cost(tokens_forward=5, flops=1.5, flops_whole=2.0, peak_memory_bytes=10),
        Cost(tokens_forward=6, flops=0.5, peak_memory_bytes=None),
        Cost(tokens_backward=2, seconds=0.5, peak_memory_bytes=7),
    ]
    assert sum(parts, Cost()) == Cost(
        tokens_forward=11,
        tokens_backward=2,
        flops=2.0,
        flops_whole=2.0,
        seconds=0.5,
        peak_memory_bytes=10,
    )
