"""One run of each of five kinds of the zoo gets the word that its suite says.

All kinds, over many seeds: `benchmarks/zoo.py`.
"""

import json
import re
from typing import get_args

import jsonschema
import pytest

from benchmarks.zoo import SUITES, expected, kinds
from harness.records import Word, schemas

pytestmark = [
    pytest.mark.slow,
    pytest.mark.replays,
    pytest.mark.xdist_group("made to fail"),
]

SMALL = ["models.small.steps=150", "examples.test.count=24"]
WEAK = ["flips=2", "candidates=8"]
ONE_SEED = "seeds=[1]"  # no treatment is judged


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("zoo")  # one store: the model is trained once


@pytest.fixture
def run(cli, place):
    """Return a function that runs a suite of the zoo and returns its verdicts by arm.

    Only the arms that are named run, besides the baseline.
    """

    def make(suite: str, arms: list[str], *changes: str):
        others = [f"arms.{arm}=null" for arm in expected(suite) if arm not in arms]
        attack = "inverted" if suite == "inverted" else "hotflip"
        weak = [f"attacks.{attack}.{option}" for option in WEAK]
        changed = (*SMALL, *weak, *others, *changes)
        stated = [x for text in changed for x in ("--set", text)]
        folder = place / suite
        done = cli("run", SUITES / f"{suite}.yaml", "--out", folder, *stated)
        assert done.code == 0, done.err
        document = json.loads((folder / "report" / "verdicts.json").read_text())
        jsonschema.validate(
            document, schemas.load("verdicts"), jsonschema.Draft202012Validator
        )
        found = {each["arm"]: each for each in document["arms"]}
        for arm, each in found.items():  # the user is told at the end of the run
            against = f" against {each['reference']}" if each["reference"] else ""
            line = rf"^{arm}{against} +{each['verdict']}(  |$)"
            assert re.search(line, done.out, re.MULTILINE)
        for arm in arms:
            assert found[arm]["verdict"] == expected(suite)[arm], found[arm]
        assert cli("validate", folder).code == 0
        return found

    return make


def replayed(folder, arm):
    """Return what the fresh process said of an arm's cells."""
    known = json.loads((folder / "replay.json").read_text())
    return [found for cell, found in known.items() if f".{arm}." in cell]


def delta_losses(folder, attack):
    """Return the mean dL of an attack, by arm."""
    records = [json.loads(p.read_text()) for p in folder.glob("cells/*/record.json")]
    return {
        record["arm"]["label"]: record["results"]["attack"]["delta_loss"]["value"]
        for record in records
        if record["attack"]["label"] == attack
    }


def test_a_hidden_gradient_is_no_defence(run, place):
    found = run("masks", ["quantised"], ONE_SEED)["quantised"]
    # To the attack it looks like one: that is what must not fool us.
    attacked = delta_losses(place / "masks", "hotflip")
    assert attacked["quantised"] < attacked["baseline"]
    assert {"gradient_health", "gradient_truth"} <= set(found["decided_by"])
    baseline = replayed(place / "masks", "baseline")
    assert baseline
    assert all(cell["largest"] < 1e-4 for cell in baseline)
    # Its architecture is no one's but ours: nobody could replay it elsewhere.
    for cell in replayed(place / "masks", "quantised"):
        assert "cannot be loaded" in cell["error"]


def test_the_same_function_with_other_weights_is_equivalent(run):
    found = run("nulls", ["gauge"], "seeds=[1, 2, 3]")["gauge"]
    low, high = found["difference"]["interval"]
    assert low <= 0 <= high or max(abs(low), abs(high)) < 0.02


def test_what_a_start_destroys_is_broken_and_a_broken_promise_not_applied(run):
    run("damage", ["abs-start", "claimed"], ONE_SEED)


def test_an_attack_down_its_gradient_is_invalid_on_every_arm(run):
    found = run("inverted", ["twin"], ONE_SEED)
    assert {each["verdict"] for each in found.values()} == {"attack invalid"}
    for each in found.values():
        assert each["decided_by"] == ["beats_random"]


def test_every_suite_of_the_zoo_says_what_its_arms_must_be_called():
    words = {expected(suite)[arm] for suite, arm in kinds()}
    assert words <= set(get_args(Word))
    assert "harder to attack" not in words
