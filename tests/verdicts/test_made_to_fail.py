"""Arms and an attack made to fail get the verdicts that they deserve, in real runs."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from harness.records import schemas
from harness.run.diagnostics import plain_replay
from harness.run.diagnostics.replay import replay_run
from harness.run.surveying import survey
from harness.verdicts.judging import judge
from harness.verdicts.results import Results

pytestmark = [pytest.mark.slow, pytest.mark.transformers5, pytest.mark.replays]

SUITES = Path(__file__).parents[2] / "suites" / "rigour"
SMALL = [
    "models.small.steps=150",
    "models.small.width=64",
    "models.small.layers=2",
    "models.small.vocabulary=512",
    "examples.test.count=16",
    "examples.prompt_tokens=12",
    "examples.reference_tokens=12",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("rigour")  # one store: the model is trained once


@pytest.fixture
def run(cli, place):
    """Return a function that runs a suite, small, and returns its verdicts by arm."""

    def make(suite: str, attack: str):
        small = [*SMALL, f"attacks.{attack}.candidates=24"]
        stated = [word for text in small for word in ("--set", text)]
        folder = place / suite
        done = cli("run", SUITES / f"{suite}.yaml", "--out", folder, *stated)
        assert done.code == 0, done.err
        document = json.loads((folder / "report" / "verdicts.json").read_text())
        jsonschema.validate(
            document, schemas.load("verdicts"), jsonschema.Draft202012Validator
        )
        arms = {found["arm"]: found for found in document["arms"]}
        for arm, found in arms.items():  # the user is told at the end of the run
            assert f"verdict: small ({arm}): {found['verdict']}" in done.err
        assert cli("validate", folder).code == 0
        return arms

    return make


def test_a_hidden_gradient_and_a_null_arm(run):
    arms = run("rigour", "hotflip")
    assert arms["baseline"]["verdict"] == "reference"

    masked = arms["masked"]
    # To the attack it looks like a defence: that is what must not fool us.
    assert masked["difference"]["interval"][1] < 0
    assert masked["p"] < 0.01
    assert masked["clean_loss"] == pytest.approx(
        arms["baseline"]["clean_loss"], abs=1e-3
    )
    assert masked["verdict"] == "gradient-masked"
    assert set(masked["decided_by"]) == {
        "gradient_health",
        "gradient_truth",
        "first_order_fidelity",
    }

    assert arms["gauge"]["verdict"] == "no effect"
    low, high = arms["gauge"]["difference"]["interval"]
    assert -0.02 < low <= 0 <= high < 0.02


def test_an_attack_down_its_gradient_is_invalid_on_every_arm(run):
    arms = run("broken", "inverted")
    assert {found["verdict"] for found in arms.values()} == {"attack invalid"}
    for found in arms.values():
        assert found["decided_by"] == ["beats_random"]
        # The gradient itself is in order: it is the attack that is not.
        answers = {x["id"]: x["status"] for x in found["diagnostics"]}
        assert answers["gradient_truth"] == answers["gradient_health"] == "pass"


def test_replays_find_what_plain_transformers_disputes(run, place):
    """After the runs above: a fresh process scores rows as the records say."""
    run("rigour", "hotflip")
    found = survey(place / "rigour")
    replay_run(found.plan, found.folder)
    arms = {x.arm: x for x in judge(Results(found, 0.15)).arms}
    answers = {
        arm: next(x for x in verdict.diagnostics if x.id == "replay")
        for arm, verdict in arms.items()
    }
    for arm in ("baseline", "gauge"):
        assert answers[arm].status == "pass"
        assert answers[arm].n == 3 * 2 * 4  # cells, prompts of a row, rows
        assert answers[arm].value < 1e-4
    # Its architecture is no one's but ours: nobody could replay it elsewhere.
    assert answers["masked"].status == "fail"
    assert "cannot be loaded" in answers["masked"].reason

    cell = next(x for x in found.plan.cells if x.variant.arm == "gauge")
    samples = found.folder.unit_dir("cell", cell.id) / "samples.jsonl"
    told = [json.loads(line) for line in samples.read_text().splitlines()]
    told[0]["adversarial_loss"] += 0.01
    forged = place / "forged.jsonl"
    forged.write_text("".join(json.dumps(row) + "\n" for row in told))
    model = found.folder.unit_dir("variant", cell.variant.id) / "model"
    job = {"id": "x", "samples": str(forged), "rows": 4}
    done = subprocess.run(
        [sys.executable, plain_replay.__file__],
        input=json.dumps([{"model": str(model), "cells": [job]}]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["x"]["largest"] == pytest.approx(0.01, abs=1e-4)
