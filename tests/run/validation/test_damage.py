"""Every form of damage to a record is refused, by readers and by validation alike."""

from pathlib import Path

import pytest

from harness.base import RecordError
from harness.records import read_record
from harness.running import RunFolder, validate
from tests.run_fixtures import ABSENT, edit

SUCCESS = ("results", "attack", "success")
SLEEP, DERIVED = ("ledger", "kept", "sleep"), ("derivation",)
NOTHING = {"achieved": False, "results": {}}


@pytest.fixture
def record_file(make_run):
    return RunFolder(make_run(seeds=[1])).records("cell")[0]


def _refused(file: Path, key: str, told: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_record(file)
    assert str(caught.value).startswith(f"{file}:")
    assert told in str(caught.value)
    found = validate([file])
    assert found.exit_code == 1
    assert [p for p in found.problems if p.key == key and told in p.message]
    assert {p.file for p in found.problems} == {str(file)}


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (("seed",), "1", 'a valid integer, not "1"'),
        (("seed",), True, "a valid integer, not true"),
        (("seed",), 1.0, "a valid integer, not 1.0"),
        (("seed",), None, "a valid integer, not null"),
        (("seed",), [1], "a valid integer"),
        (("seed",), ABSENT, "is missing"),
        (("ledger",), ABSENT, "is missing"),
        ((*SUCCESS, "n"), ABSENT, "is missing"),
        (("status",), "done", "'complete' or 'failed', not \"done\""),
        (("surprise",), 1, "is unknown"),
        ((*SUCCESS, "mood"), "good", "is unknown"),
        ((*SUCCESS, "n"), -1, "greater than or equal to 0, not -1"),
        ((*SUCCESS, "n"), "40", 'a valid integer, not "40"'),
        ((*SUCCESS, "value"), "0.5", 'a valid number, not "0.5"'),
        ((*SUCCESS, "value"), True, "a valid number, not true"),
        ((*SUCCESS, "unit"), 3, "a valid string, not 3"),
        (("samples", "sha256"), "0" * 63, "should match pattern"),
        (("suite", "sha256"), "G" * 64, "should match pattern"),
        (("arm", "options"), [], "should be an object"),
        (("provenance", "dirty"), 1, "a valid boolean, not 1"),
        (("provenance", "restarts"), "0", "a valid integer"),
        (("ledger", "kept", "attack", "flops"), -1.0, "greater than or equal to 0"),
        (("schema_version",), 2, "schema version 2; this harness reads version 1"),
        (("schema_version",), "1", "this harness reads version 1"),
        (("schema_version",), True, "this harness reads version 1"),
        (("schema_version",), 1.0, "this harness reads version 1"),
        (("schema_version",), None, "this harness reads version 1"),
    ],
)
def test_a_wrong_value_is_told_with_its_path(record_file, keys, value, told):
    edit(record_file, *keys, value=value)
    _refused(record_file, ".".join(keys), told)


@pytest.mark.parametrize(
    ("keys", "value", "key", "told"),
    [
        ((*SUCCESS, "value"), None, SUCCESS, "reason must be given"),
        ((*SUCCESS, "interval"), [0.1], (*SUCCESS, "interval", "1"), "is missing"),
        ((*SUCCESS, "interval"), [0, 1, 2], (*SUCCESS, "interval"), "at most 2 items"),
        ((*SUCCESS, "interval"), ["0", 1], (*SUCCESS, "interval", "0"), "valid number"),
        ((*SUCCESS, "interval"), [0, True], (*SUCCESS, "interval", "1"), "not true"),
        (("samples",), None, (), "samples must be given where status is 'complete'"),
        (("attack",), None, (), "attack must be given where kind is 'cell'"),
        (("status",), "failed", (), "error must be given where status is 'failed'"),
        (DERIVED, NOTHING, DERIVED, "reason must be given where achieved is False"),
        (SLEEP, {}, (*SLEEP, "[key]"), "'attack' or 'rescore', not \"sleep\""),
    ],
)
def test_a_broken_rule_is_told_where_it_is_stated(record_file, keys, value, key, told):
    edit(record_file, *keys, value=value)
    _refused(record_file, ".".join(key), told)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('"seed": 1', '"seed": NaN'), "NaN is not JSON"),
        (('"seed": 1', '"seed": Infinity'), "Infinity is not JSON"),
        (('"seed": 1', '"seed": -Infinity'), "-Infinity is not JSON"),
        (('"seed": 1', '"seed": 1e999'), "1e999 is beyond the range of floats"),
        (('"given": []', '"given": [NaN]'), "NaN is not JSON"),
        (('"flips":', '"limit": NaN, "flips":'), "NaN is not JSON"),
        (('"flips":', '"limit": -1e999, "flips":'), "beyond the range of floats"),
        (("{", '{"seed": 7,'), "the key 'seed' occurs twice"),
        (('"flips":', '"flips": 7, "flips":'), "the key 'flips' occurs twice"),
        (("{", "\ufeff{"), "BOM"),
        (("{", "{,"), "Expecting property name"),
        (('"seed": 1', '"seed": ' + "[" * 100_000), "nested more than 100 levels deep"),
    ],
)
def test_what_is_no_strict_json_is_refused(record_file, change, told):
    text = record_file.read_text()
    assert change[0] in text
    record_file.write_text(text.replace(*change, 1), encoding="utf-8")
    _refused(record_file, "", told)
    assert "cannot be read" in validate([record_file]).problems[0].message


@pytest.mark.parametrize("end", [0, 1, 500, -2])
def test_a_torn_file_is_refused(record_file, end):
    torn = record_file.read_text().rstrip()[:end]
    record_file.write_text(torn)
    _refused(record_file, "", "cannot be read")
    (problem,) = validate([record_file]).problems
    assert problem.line == max(1, len(torn.splitlines()))


@pytest.mark.parametrize("text", ["null", "[]", "3", '"record"'])
def test_what_is_no_object_is_refused(record_file, text):
    record_file.write_text(text)
    _refused(record_file, "", "should be an object")


def test_what_is_not_utf_8_is_refused(record_file):
    record_file.write_bytes(record_file.read_bytes().replace(b"hotflip", b"hotfl\xffp"))
    _refused(record_file, "", "cannot be read: 'utf-8' codec")


def test_a_file_that_is_not_there_cannot_be_read(tmp_path):
    with pytest.raises(RecordError, match=r"record\.json: cannot be read"):
        read_record(tmp_path / "record.json")
