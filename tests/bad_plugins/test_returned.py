"""What an attack must not return or raise fails its cell, with a sentence, alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("returned")
ZOO = Path(__file__).with_name("zoo.py")

WRONG = "returned a wrong `{}` for the example 'test/0': expected {}; came {}"
IDS = "token ids [n], whole numbers"
KNOWN = "ids from 0 to 319, which the model has"
LONG = "at most 80 tokens for a clean prompt of 8"
TRACE = "at most 100,000 steps and 16,000,000 characters"
NOT_JSON = "Out of range float values are not JSON compliant"
SENTENCES = {
    "a_string": WRONG.format("prompt_ids", IDS, "'the cat sat on the mat'"),
    "no_ids": WRONG.format("prompt_ids", IDS, "None"),
    "floats": WRONG.format("prompt_ids", IDS, "an array [8] of float64"),
    "negative": WRONG.format("prompt_ids", KNOWN, "-3"),
    "out_of_range": WRONG.format("prompt_ids", KNOWN, "10000000"),
    "two_dimensions": WRONG.format("prompt_ids", IDS, "an array [1, 8] of int64"),
    "empty": WRONG.format("prompt_ids", "one token at least", "none"),
    "fifty_times": WRONG.format("prompt_ids", LONG, "400"),
    "endless_prompt": WRONG.format("prompt_ids", IDS, "a generator"),
    "endless_trace": WRONG.format("trace", TRACE, "more"),
    "huge_trace": WRONG.format("trace", TRACE, "more"),
    "nan_trace": WRONG.format("trace", "steps that JSON can hold", NOT_JSON),
    "unasked": WRONG.format("checkpoints", "checkpoints at []", "['0.3'], unasked"),
    "bad_replicate": WRONG.format("replicates[0]", KNOWN, "-1"),
    "unknown_example": "returned the example 'test/99' unasked; expected one of the 3 "
    "that it was given: 'test/0', 'test/1', 'test/2', ...",
    "not_a_result": "yielded a ndarray; expected a harness.api.Adversarial",
    "yields_none": "yielded None; expected a harness.api.Adversarial",
    "twice": "returned the example 'test/0' twice; expected one result for each",
    "nothing": "returned None from `run`; expected an iterator that yields a "
    "harness.api.Adversarial for each example",
    "list_of_results": "returned a list from `run`; expected an iterator",
}
"""By attack: what its record says after its name."""
RAISED = {
    "wrong_ids": "the token id 10000000 is none of this model's, which has ids from 0 "
    "to 319",
    "recursion": "maximum recursion depth exceeded",
    "raises": "\x1b[31mred\x1b[0m <b>bold</b> | \u202etxt",
    "threshold": "Instance is frozen",
    "sly_threshold": "changed the suite, which other attacks and metrics use after it",
    "interrupts": "a plugin raised KeyboardInterrupt, and nobody had pressed Ctrl-C",
    "quits": "a plugin called sys.exit(0)",
    "base_exception": "out of nowhere",
}
"""By attack: what its record says somewhere."""
ELSEWHERE = ("sly_threshold",)
"""Attacks whose fault is found after they have returned."""


@pytest.fixture(scope="module")
def done(place):
    """Run all of them, an honest attack last; return what holds the records.

    In a process of its own: one of them changes the defaults of every suite in its own.
    """
    bad = {name: {} for name in (*SENTENCES, *RAISED, "a_list", "missing_one")}
    command = place.command("returned", {**bad, "honest": {"attack": "none"}})
    command = [sys.executable, "-m", "harness", *command]
    ended = subprocess.run(command, capture_output=True, check=False)
    assert ended.returncode == 1
    return lambda attack: place.record("returned", attack)


@pytest.mark.parametrize("attack", SENTENCES)
def test_what_is_wrong_is_said_with_attack_and_example(done, attack):
    record, rows = done(attack)
    assert (record["status"], rows) == ("failed", None)
    assert record["error"]["type"] == "CellError"
    said = record["error"]["message"]
    assert said.startswith(f"the attack '{attack}' {SENTENCES[attack]}")


@pytest.mark.parametrize("attack", RAISED)
def test_what_is_raised_fails_the_cell_and_its_place_is_named(done, attack):
    record, rows = done(attack)
    assert (record["status"], rows) == ("failed", None)
    assert RAISED[attack] in record["error"]["message"]
    if attack not in ELSEWHERE:
        file, _, place = record["error"]["place"].partition(", line ")
        lines = ZOO.read_text().splitlines()
        number, _, function = place.partition(", in ")
        assert (file, function in ("result", "run")) == (str(ZOO), True)
        assert any(
            x in lines[int(number) - 1] for x in ("raise", "=", "losses", "self")
        )


def test_after_all_of_them_an_honest_attack_is_scored(done):
    for attack in ("honest", "a_list"):
        record, rows = done(attack)
        found = [json.loads(row) for row in rows.splitlines()]
        assert record["status"] == "complete"
        assert [row["delta_loss"] for row in found] == [0.0, 0.0, 0.0]
        assert record["results"]["attack"]["threshold"]["value"] == 0.15


def test_an_example_without_a_result_is_an_error_of_that_example(done):
    record, rows = done("missing_one")
    found = [json.loads(row) for row in rows.splitlines()]
    assert record["status"] == "complete"
    assert [row["status"] for row in found] == ["unchanged", "error", "unchanged"]
    assert found[1]["error"] == "the attack returned nothing for this example"


def test_the_terminal_says_where_it_was_and_where_its_log_lies(place, capsys):
    assert place.run("said", {"recursion": {}}) == 1
    said = capsys.readouterr().err
    assert f"(at {ZOO}, line " in said
    (log,) = (place.folder / "said").glob("cells/*/log.txt")
    assert f"its log: {log}" in said
    assert "RecursionError" in log.read_text()
