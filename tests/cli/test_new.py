"""``harness new``: what it writes works as it stands."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness.api import KINDS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_test_that_it_writes_passes(cli, tmp_path, kind):
    folder = tmp_path / "a new folder"
    outcome = cli("new", kind, "my_thing", "--dir", folder)
    assert outcome.code == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "my_thing.py",
        "test_my_thing.py",
    ]
    options = ["-q", "-W", "error", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, folder]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_the_plugin_that_it_writes_is_listed(cli, tmp_path, kind):
    cli("new", kind, "my_thing", "--dir", tmp_path)
    outcome = cli("describe", "my_thing", "--plugins", tmp_path)
    assert outcome.code == 0
    assert outcome.out.startswith(f"{kind} my_thing: ")


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_writes_is_formatted_and_clean(cli, tmp_path, kind):
    cli("new", kind, "my_thing", "--dir", tmp_path)
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    for check in (["format", "--check"], ["check", "--ignore", "D,S101"]):
        command = [sys.executable, "-m", "ruff", *check, *config, tmp_path]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("file", ["my_thing.py", "test_my_thing.py"])
def test_it_overwrites_nothing(cli, tmp_path, file):
    (tmp_path / file).write_text("mine")
    outcome = cli("new", "attack", "my_thing", "--dir", tmp_path)
    assert outcome.code == 2
    assert "already there" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == [file]
    assert (tmp_path / file).read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["My", "2x", "a-b", "a.b", "../a", "class", "_a", "test_a", "", "ä"]
)
def test_a_name_that_makes_no_plugin_file_is_refused(cli, tmp_path, name):
    outcome = cli("new", "attack", name, "--dir", tmp_path)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken_is_refused(cli, tmp_path):
    outcome = cli("new", "model", "pythia", "--dir", tmp_path)
    assert outcome.code == 2
    assert "there is a model 'pythia' already: " in outcome.err
