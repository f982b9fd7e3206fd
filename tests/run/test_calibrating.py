"""This machine's speed, fitted to what a small suite took, and kept."""

import json
from typing import get_args

import numpy as np
import pytest

from harness.records import Phase
from harness.running.calibrating import SUITE, fit_terms
from harness.suite import cpu_device, identify, load_experiment, make_plan, plan_costs
from harness.suite.devices import Terms, calibrated, keep_device


def test_a_fit_finds_the_terms_that_made_the_seconds():
    rng = np.random.default_rng(0)
    amounts = rng.uniform(1, 10, (12, 3)) * [1e9, 1e3, 1]
    terms = np.array([2e-10, 1e-3, 0.5])
    assert fit_terms(amounts, amounts @ terms) == pytest.approx(terms)


def test_no_term_is_negative_and_what_never_occurs_costs_nothing():
    amounts = [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]
    assert fit_terms(amounts, [-1.0, 0.0, -2.0]) == [0.0, 0.0]


def test_the_suite_that_calibrates_has_all_phases_at_two_sizes(tmp_path):
    suite = tmp_path / "calibration.yaml"
    suite.write_text(SUITE)
    experiment = identify(load_experiment(suite), tmp_path / "store")
    plan = make_plan(experiment)
    costs = plan_costs(plan, tmp_path / "store")
    sizes = {shape.parameters for shape in costs.shapes.values()}
    assert len(sizes) == 2
    phases = {phase for unit in costs.units.values() for phase in unit.whole}
    assert phases == {*get_args(Phase)}


def test_a_calibration_is_kept_and_is_the_default_device(
    cli, toy_suite, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert calibrated() is None
    device = cpu_device({"attack": Terms(flop=1.0)}, per_run_s=4321.0)
    monkeypatch.setattr("harness.running.calibrating.calibrate", lambda say: device)

    made = cli("plan", toy_suite, "--json", "--calibrate")

    assert calibrated() == device
    assert json.loads(made.out)["device"]["per_run_s"] == 4321.0
    for choice in ((), ("--device", "cpu")):
        later = json.loads(cli("plan", toy_suite, "--json", *choice).out)
        assert later["device"] == json.loads(made.out)["device"]
    other = json.loads(cli("plan", toy_suite, "--json", "--device", "H100").out)
    assert other["device"]["name"] == "H100"


def test_a_damaged_calibration_counts_as_none(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_device(cpu_device({}))
    (tmp_path / "harness" / "device.json").write_text("{}")
    assert calibrated() is None
