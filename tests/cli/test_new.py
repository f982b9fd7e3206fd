"""``harness new``: what it writes works as it stands."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.api import KINDS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_commands_that_it_prints_work(cli, tmp_path):
    """Taken literally, in a shell without any environment that is activated.

    The tests of all kinds are run by the command of the first.
    """
    folder, printed = tmp_path / "a new folder", {}
    for kind in KINDS:
        outcome = cli("new", kind, f"my_{kind}", "--dir", folder)
        assert outcome.code == 0
        lines = outcome.out.splitlines()[-2:]
        printed[kind] = [line.removeprefix("try it:").strip() for line in lines]
    names = {f"{start}my_{kind}.py" for kind in KINDS for start in ("", "test_")}
    assert {path.name for path in folder.iterdir()} == names
    first, *others = KINDS
    test, describe = printed[first]
    for kind in others:
        of_first = [x.replace(f"my_{kind}", f"my_{first}") for x in printed[kind]]
        assert of_first == printed[first]
        test += f" '{folder}/test_my_{kind}.py'"
    bare = {
        **os.environ,
        "PATH": "/usr/bin:/bin",
        "PYTEST_ADDOPTS": "-q -rp -W error -p no:cacheprovider",
    }
    for command, says in (
        (test, [f"/{folder.name}/test_my_{kind}.py::" for kind in KINDS]),
        (describe, [f"{first} my_{first}: "]),
    ):
        result = subprocess.run(
            command, shell=True, capture_output=True, text=True, env=bare
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert all(said in result.stdout for said in says), result.stdout


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
    assert outcome.err.startswith("error: the model 'pythia' is there already: ")


def test_the_command_is_that_of_the_environment(cli, tmp_path, monkeypatch):
    """Found on the path, not found there, found there and another's; no pytest."""
    environment = tmp_path / "env" / "bin"
    environment.mkdir(parents=True)
    for name in ("python", "pytest", "harness"):
        (environment / name).touch(0o755)
    monkeypatch.setattr(sys, "executable", str(environment / "python"))
    monkeypatch.chdir(tmp_path)

    def printed(name, path):
        monkeypatch.setenv("PATH", str(path))
        out = cli("new", "attack", name).out.splitlines()
        return out[-2].removeprefix("try it:  "), out[-1].strip()

    describe = "describe one --plugins one.py"
    assert printed("one", environment) == ("pytest test_one.py", f"harness {describe}")
    test, described = printed("two", "/usr/bin")
    assert test == "env/bin/python -m pytest test_two.py"
    assert described.startswith("env/bin/python -m harness describe two")
    other = tmp_path / "other"
    other.mkdir()
    (other / "pytest").touch(0o755)
    assert printed("three", other)[0] == "env/bin/python -m pytest test_three.py"
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda x, *a: None if x == "pytest" else find(x, *a),
    )
    assert printed("four", other)[0] == (
        "env/bin/python -m pip install pytest && env/bin/python -m pytest test_four.py"
    )
