"""A thousand inputs of the fuzzer, and properties of what reads hostile text."""

import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from harness.base import visible
from harness.records import parse_json
from harness.suite import Place, parse
from tests.fuzz.attempt import Guard, Outside
from tests.fuzz.inputs import Place as Files, furnish, make

START = Place("s.yaml", 1, Path())
quick = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
scalars = (
    strategies.none()
    | strategies.booleans()
    | strategies.integers(-(2**63) + 1, 2**63 - 1)
    | strategies.floats(allow_nan=False, allow_infinity=False)
    | strategies.text(strategies.characters(exclude_categories=["Cs", "Cc"]))
)
values = strategies.recursive(
    scalars,
    lambda parts: (
        strategies.lists(parts, max_size=4)
        | strategies.dictionaries(strategies.from_regex(r"\A[a-z]{1,8}\Z"), parts)
    ),
    max_leaves=20,
)


@pytest.mark.slow
def test_a_thousand_inputs_end_in_a_sentence():
    command = [sys.executable, "-m", "tests.fuzz", "--inputs", "1000", "--jobs", "1"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    told = r"1000 inputs of seed 11 in \d+ s: nothing wrong\n"
    assert re.fullmatch(told, done.stdout)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    return furnish(tmp_path_factory.mktemp("files") / "all")


def test_the_same_seed_gives_the_same_inputs(files):
    made = [make(files, 3, number) for number in range(40)]
    assert made == [make(files, 3, number) for number in range(40)]
    assert made != [make(files, 4, number) for number in range(40)]


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    return Guard(tmp_path_factory.mktemp("guarded"))


@pytest.mark.parametrize(
    "act",
    [
        lambda path: path.write_text("x"),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("a"),
        lambda path: (path.parent / "b").rename(path),
        lambda path: os.open(path, os.O_WRONLY | os.O_CREAT),
    ],
)
def test_the_guard_stops_a_write_before_it_happens(guard, tmp_path, act):
    with pytest.raises(Outside), guard.watching():
        act(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_guard_stops_code_of_the_folder(guard, tmp_path):
    file = Path(guard._folder, "evil.py")
    code = compile("found = 1", file, "exec")
    with pytest.raises(Outside), guard.watching():
        exec(code, {})
    with guard.watching(trusting=True):
        exec(code, {})


# --- properties ---------------------------------------------------------------------


@quick
@given(
    strategies.text(max_size=60)
    | strategies.from_regex(r"[-\[\]{}:&*!?|>'\"# a1\n]{0,30}")
)
def test_any_text_is_read_or_complained_of(text):
    layer = parse(text, START)
    if not layer.problems:
        json.dumps(layer.value)


@quick
@given(values)
def test_json_is_yaml(value):
    layer = parse(json.dumps({"a": value}), START)
    assert not layer.problems
    assert layer.value == {"a": value}


@quick
@given(values)
def test_strict_json_reads_what_json_says(value):
    assert parse_json(json.dumps(value)) == value


@quick
@given(strategies.text())
def test_what_is_shown_can_be_seen(text):
    shown = visible(text)
    assert visible(shown) == shown
    hidden = {x for x in shown if unicodedata.category(x) in {"Cc", "Cf", "Cs"}}
    assert hidden <= {"\n", "\t"}
