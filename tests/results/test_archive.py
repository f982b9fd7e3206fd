"""A run as one file: it says the same elsewhere, and names no machine."""

import tarfile
from pathlib import Path

import pytest

from harness.results import load_run
from tests.run_fixtures import editing


@pytest.fixture
def run(make_run):
    run = make_run("mine")
    for path in run.glob("*/*/record.json"):
        with editing(path) as record:
            record["provenance"]["hardware"]["host"] = "secret-host"
    return run


def test_what_was_exported_validates_and_says_the_same(cli, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("export", run).code == 0
    file = tmp_path / "mine.tar.gz"
    with tarfile.open(file) as archive:
        members = archive.getmembers()
        for member in members:
            assert not member.uname
            assert not Path(member.name).is_absolute()
            if member.isfile():
                content = archive.extractfile(member).read()
                assert b"secret-host" not in content
                assert str(tmp_path).encode() not in content
    assert cli("export", file, "-o", tmp_path / "other").code == 0
    validated = cli("validate", tmp_path / "other")
    assert validated.code == 0, validated.out + validated.err
    before, after = load_run(run), load_run(tmp_path / "other")
    columns = ["id", "delta_loss", "delta_loss_low", "flops"]
    assert before.cells[columns].equals(after.cells[columns])
    assert before.verdicts.verdict.equals(after.verdicts.verdict)
    # The same again is the same file.
    first = file.read_bytes()
    assert cli("export", run).code == 0
    assert file.read_bytes() == first


def test_an_archive_that_was_changed_is_refused(cli, run, tmp_path):
    file = tmp_path / "run.tar.gz"
    assert cli("export", run, "-o", file).code == 0
    folder = tmp_path / "unpacked"
    with tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")
    samples = next(folder.glob("run/cells/*/samples.jsonl"))
    samples.write_text(samples.read_text().replace("attacked", "unchanged", 1))
    with tarfile.open(file, "w:gz") as archive:
        archive.add(folder / "run", "run")
    outcome = cli("export", file, "-o", tmp_path / "new")
    assert outcome.code == 2
    assert "differs from its checksum" in outcome.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("style", ["archive", "parquet"])
def test_a_folder_is_no_file_to_write(cli, run, tmp_path, style):
    folder = tmp_path / "there"
    folder.mkdir()
    outcome = cli("export", run, "--format", style, "-o", folder)
    told = f"error: {folder} is a folder: name the file to write\n"
    assert (outcome.code, outcome.err) == (2, told)


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_what_is_no_archive_is_said(cli, tmp_path, content):
    file = tmp_path / "x.tar.gz"
    file.write_bytes(content)
    outcome = cli("export", file, "-o", tmp_path / "new")
    assert outcome.code == 2
    assert "is no archive of a run" in outcome.err
