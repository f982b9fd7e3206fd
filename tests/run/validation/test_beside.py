"""What lies beside a record: nothing that leads elsewhere is opened or believed."""

import hashlib
import os
import tracemalloc

import pytest

from harness.base import time_limit
from harness.records import Samples
from harness.running import RunFolder, validate
from harness.running.folder import ReadOnce, samples_fault
from tests.run_fixtures import edit


@pytest.fixture
def cell(make_run):
    return RunFolder(make_run(seeds=[1])).records("cell")[0]


@pytest.mark.parametrize(
    "name",
    ["/dev/zero", "../samples.jsonl", "a/b", "..", ".", "", "a\\b", "a\nb", "\0"],
)
def test_samples_are_a_name_and_no_path(cell, name):
    edit(cell, "samples", "path", value=name)
    found = validate([cell])
    assert found.exit_code == 1
    assert {x.key for x in found.problems} == {"samples.path"}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (os.mkfifo, "is a named pipe"),
        (os.mkdir, "is a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "is a link"),
        (lambda path: path.symlink_to("nowhere"), "is a link"),
    ],
)
def test_samples_are_a_file_of_their_own(cell, make, told):
    samples = cell.with_name("samples.jsonl")
    samples.unlink()
    make(samples)
    run = RunFolder(cell.parents[2])
    with time_limit(60):  # or else a pipe would be waited for, and a device read
        for path in (cell, run.root):
            (problem,) = validate([path]).problems
            assert told in problem.message
        assert run.state("cell", cell.parent.name).status == "invalid"


def test_samples_are_hashed_in_pieces(tmp_path):
    """However large they are said to be: here 64 MiB of nothing."""
    path = tmp_path / "samples.jsonl"
    path.touch()
    os.truncate(path, 2**26)
    stated = Samples(path=path.name, rows=0, sha256="0" * 64)
    tracemalloc.start()
    try:
        assert "differs from its hash" in samples_fault(tmp_path / "x", stated)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_a_line_longer_than_any_row_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.running.folder._LONGEST", 8)
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b"short\n" + b"x" * 20 + b"\nend")
    read = ReadOnce(path)
    assert [len(line) for line in read.lines()] == [6, 8, 8, 5, 3]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read.fault(Samples(path=path.name, rows=2, sha256=digest)) is None


def test_a_record_that_lies_alone_is_checked(cell, tmp_path):
    alone = tmp_path / "record.json"
    alone.write_bytes(cell.read_bytes())
    assert validate([alone]).exit_code == 1


def test_a_model_that_leads_nowhere_is_said(make_run):
    run = make_run(seeds=[1])
    variant = RunFolder(run).records("variant")[0]
    model = variant.with_name("model")
    assert validate([run]).problems == ()  # the model may be kept elsewhere
    model.symlink_to("../../gone/model")
    (problem,) = validate([run]).problems
    assert problem.file == str(model)
    assert "it leads to ../../gone/model, which is not there" in problem.message


def test_the_model_of_a_variant_that_failed_leads_somewhere_too(make_run):
    run = make_run(seeds=[1], failed=("baseline.s1-",))
    (record,) = run.glob("variants/*baseline*/record.json")
    model = record.with_name("model")
    model.symlink_to("gone")
    said = [x.message for x in validate([run]).problems if x.file == str(model)]
    assert len(said) == 1
    assert said[0].startswith("it leads to gone, which is not there")


def test_claims_that_a_record_states_otherwise_than_its_suite_are_said(make_run):
    run = make_run(
        seeds=[1],
        more="claims: {g: {a: {attack: hotflip, arm: monotone, dL: < 0}}}",
    )
    assert validate([run]).problems == ()
    edit(RunFolder(run).records("cell")[0], "claims", "g", "a", "bound", value="< 9")
    (problem,) = validate([run]).problems
    assert problem.key == "claims"
    said = "g.a (dL of hotflip, monotone against baseline: {})"
    suite = f"but its suite says {said.format('< 0')}"
    assert problem.message == f"{said.format('< 9')}, {suite}"
