"""``harness plan``, and the options that all commands on suites share."""

import json
import re
from pathlib import Path

import pytest

SUITES = Path(__file__).parents[2] / "suites"


def test_it_lists_variants_and_cells(cli, toy_suite):
    outcome = cli("plan", toy_suite)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0] == "variants"
    assert lines[5] == "cells"
    assert [line.split()[1] for line in lines[1:5] + lines[6:14]] == ["new"] * 12
    assert lines[-1] == "4 variants, 8 cells: 12 new"


def test_json_says_the_same(cli, toy_suite):
    outcome = cli("plan", toy_suite, "--json", "--only", "arm=baseline,seed=2")
    document = json.loads(outcome.out)
    assert document["missing"] == []
    units = document["units"]
    assert [(unit["kind"], unit["state"], unit["runs"]) for unit in units] == [
        ("variant", "new", True),
        ("cell", "new", True),
        ("cell", "new", True),
    ]
    assert units[0]["id"].startswith("toy-1.5b.baseline.s2-")


def test_only_takes_several_values_of_a_key(cli, toy_suite):
    once = cli("plan", toy_suite, "--only", "seed=1,2,attack=flip", "--json").out
    twice = cli(
        "plan", toy_suite, "--only", "seed=1", "--only", "seed=2,attack=flip", "--json"
    ).out
    assert once == twice
    assert len(json.loads(once)["units"]) == 4 + 4


def test_every_option_reaches_the_suite(cli, toy_suite, example_plugin):
    outcome = cli(
        *("plan", toy_suite, "--profile", "quick", "--seeds", "5,6", "--limit", "3"),
        *("--set", "arms.monotone=null", "--set", "attacks.rotate={}"),
        *("--plugins", example_plugin, "--device", "cpu", "--batch-size", "2"),
        *("--out", "elsewhere", "--json"),
    )
    stems = {u["id"].rpartition("-")[0] for u in json.loads(outcome.out)["units"]}
    assert stems == {
        f"toy-1.5b.baseline.s{seed}{attack}"
        for seed in (5, 6)
        for attack in ("", ".flip", ".rotate")
    }


def test_costs_are_said_for_a_device_and_at_a_rate(cli, tmp_path):
    quick = SUITES / "pythia_1p4b.yaml", "--profile", "quick", "--out", tmp_path
    text = cli("plan", *quick, "--device", "H200", "--rate", "10").out
    assert "costs on H200 (139.0 GiB, $10.00 an hour)" in text
    document = json.loads(
        cli("plan", *quick, "--device", "H200", "--rate", "10", "--json").out
    )
    total = document["total"]
    assert total["dollars"] == pytest.approx(10 * total["hours"])
    seconds = sum(unit["seconds"] for unit in document["units"])
    assert 0 < total["seconds"] - seconds < 600  # the run's own
    phases = document["phases"].values()
    assert total["flops"] == pytest.approx(sum(cost["flops"] for cost in phases))
    assert document["does_not_fit"] == []
    assert f"{total['flops']:.1e}".replace("e+", "e") in text


def test_what_would_fit_is_said(cli, tmp_path):
    full = SUITES / "pythia_1p4b.yaml", "--out", tmp_path, "--device", "A100-40GB"
    outcome = cli("plan", *full, "--set", "recovery.micro_batch=8", "--within", "9")
    assert outcome.code == 2  # the model is not on this machine
    assert "DOES NOT FIT: pythia-1.4b: train needs" in outcome.out
    assert "DOES NOT FIT into 9 hours" in outcome.out
    assert cli("plan", *full, "--within", "9000").out.count("fits into 9000 hours") == 1


def test_an_unknown_device_is_wrong_usage(cli, toy_suite):
    outcome = cli("plan", toy_suite, "--device", "H300")
    assert outcome.code == 2
    assert "did you mean 'H200'" in outcome.err or "did you mean 'H100'" in outcome.err


def test_a_limit_is_marked(cli, toy_suite):
    assert "not for real numbers" in cli("plan", toy_suite, "--limit", 3).err


def test_what_is_not_here_blocks_and_is_named(cli, toy_suite):
    outcome = cli("plan", toy_suite, "--set", "models.toy-1.5b.path=./gone")
    assert outcome.code == 2
    assert "12 blocked" in outcome.out
    said = outcome.err.splitlines()[0]
    assert said.startswith(
        "not on this machine: --set models.toy-1.5b.path: no weights in"
    )
    assert outcome.err.count("no weights in") == 1
    first = outcome.out.splitlines()[1].split()
    assert first == ["toy-1.5b.baseline.s1", "blocked"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bas.yaml"], "no such suite: bas.yaml; did you mean base.yaml?"),
        (["base.yaml", "--only", "arm=monoton"], "did you mean 'monotone'?"),
        (["base.yaml", "--only", "monotone"], "expected KEY=VALUE,...: 'monotone'"),
        (["base.yaml", "--seeds", "x"], "expected seeds such as 42,1337: 'x'"),
        (["base.yaml", "--profile", "quik"], "did you mean 'quick'?"),
        (["base.yaml", "--set", "seeds=[]"], "--set seeds: expected at least 1 entry"),
        (["base.yaml", "--batch-size", "0"], "--batch-size"),
    ],
)
def test_mistakes_exit_with_2_and_say_what_is_known(cli, toy_suite, arguments, message):
    outcome = cli("plan", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.out == ""


def test_what_a_suite_cannot_have_is_refused_before_anything_is_listed(cli, toy_suite):
    outcome = cli("plan", toy_suite, "--set", "examples.test.count=100000")
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("--set examples.test.count: corpus test gives ")
    again = cli("run", toy_suite, "--set", "examples.test.count=100000", "--out", "r")
    assert (again.code, again.err) == (2, outcome.err)
    assert not Path("r").exists()


def test_a_gpu_that_is_not_here_is_said_first(cli, toy_suite):
    with Path("base.yaml").open("a") as file:
        file.write("device: cuda:99\n")
    outcome = cli("plan", toy_suite)
    assert outcome.code == 2
    assert re.match(r"not on this machine: base.yaml:\d+: device: ", outcome.err)
    assert "12 new" in outcome.out
    assert cli("plan", toy_suite, "--device", "H200").code == 0  # planned for another
    named = cli("plan", toy_suite, "--device", "cuda:99")
    assert (named.code, named.out) == (2, "")
    assert "device cuda:99" in named.err
