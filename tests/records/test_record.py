"""Records: what may be written, and what they say."""

import json
import math

import jsonschema
import pytest

from harness.base import RecordError
from harness.records import Cost, Diagnostic, read_record, schemas, write_record
from harness.running import RunFolder
from tests.run_fixtures import read_all

STORY = {
    "seeds": [1],
    "failed": ("monotone.s1.random",),
    "arms": "  match: {constraint: noise, derive_from: baseline, "
    "match_loss_of: monotone}",
    "clean_loss": {"baseline": 2.4, "monotone": 2.5, "match": 2.5},
    "delta_loss": {
        (arm, attack): 0.5
        for arm in ("baseline", "monotone", "match")
        for attack in ("hotflip", "random")
    },
}


@pytest.fixture
def records(make_run):
    return read_all(make_run(**STORY))


def test_what_is_written_is_read_back_equal(records, tmp_path):
    for record in records:
        path = tmp_path / record.id / "record.json"
        write_record(path, record)
        assert read_record(path) == record


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"value": math.nan}, r"diagnostics\.0\.value: nan is not finite"),
        ({"value": -math.inf}, r"diagnostics\.0\.value: -inf is not finite"),
        ({"measured": {"x": [math.inf]}}, r"0\.measured\.x\.0: inf is not finite"),
        ({"value": "0.5"}, r"diagnostics\.0\.value: '0.5' is not "),
        ({"value": None}, r"diagnostics\.0\.reason: None should not be valid"),
        ({"status": "done"}, r"diagnostics\.0\.status: 'done' is not one of"),
    ],
)
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_what_breaks_the_schema_is_not_written(make_run, wrong, told):
    file = RunFolder(make_run(seeds=[1])).records("cell")[0]
    good = {"id": "determinism", "status": "pass", "value": 1.0, "n": 1, "unit": "x"}
    hidden = [Diagnostic.model_construct(**{**good, **wrong})]
    record = read_record(file).model_copy(update={"diagnostics": hidden})
    before = file.read_bytes()
    with pytest.raises(RecordError, match=told) as caught:
        write_record(file, record)
    assert str(caught.value).startswith(f"{file}: ")
    assert file.read_bytes() == before


def test_the_published_schema_alone_accepts_what_is_written(records):
    """Others validate with the file, not with our models."""
    schema = json.loads(schemas.file_of("record").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for record in records:
        validator.validate(json.loads(record.model_dump_json()))


def test_a_record_says_what_its_plugins_are(records):
    """So that reports can judge without them."""
    roles = {record.arm.label: record.arm.role for record in records}
    assert roles == {"baseline": None, "monotone": None, "match": "match"}
    attacks = {x.attack.label: x.attack for x in records if x.attack is not None}
    assert attacks["random"].shows == "search"
    assert attacks["hotflip"].shows is None
    assert not any(attack.replays or attack.role for attack in attacks.values())


def test_costs_add_up_but_for_peak_memory():
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
