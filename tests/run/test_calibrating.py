"""This machine's speed, fitted to what a small suite took, and kept."""

import json
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest

from harness.records import Cost, Phase
from harness.running.calibrating import SUITE, fit_phases, fit_terms
from harness.suite import cpu_device, identify, load_experiment, make_plan, plan_costs
from harness.suite.costs import Part, UnitCost
from harness.suite.devices import (
    Terms,
    Work,
    calibrated,
    gpu_device,
    keep_device,
    phase_seconds,
)


def test_a_fit_finds_the_terms_that_made_the_seconds():
    rng = np.random.default_rng(0)
    amounts = rng.uniform(1, 10, (12, 3)) * [1e9, 1e3, 1]
    terms = np.array([2e-10, 1e-3, 0.5])
    assert fit_terms(amounts, amounts @ terms, [0.0] * 3) == pytest.approx(terms)
    least = [1e-10, 0.0, 0.4]
    assert fit_terms(amounts, amounts @ terms, least) == pytest.approx(terms)


def test_no_term_is_negative_and_what_never_occurs_costs_nothing():
    amounts = [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]
    assert fit_terms(amounts, [-1.0, 0.0, -2.0], [0.0, 0.0]) == [0.0, 0.0]


def test_no_term_is_below_what_it_takes_by_itself():
    """Two amounts that grow alike: what one takes at least, the other does not."""
    amounts = [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    assert fit_terms(amounts, [5.0, 10.0, 15.0], [4.0, 0.0]) == pytest.approx([5, 0])
    amounts = [[1.0, 10.0], [2.0, 20.0], [1.0, 10.0]]
    found = fit_terms(amounts, [5.0, 10.0, 5.0], [4.0, 0.0])
    assert found[0] >= 4
    assert np.array(amounts) @ found == pytest.approx([5, 10, 5])
    assert fit_terms([[2.0]], [1.0], [3.0]) == [3.0]


AMOUNTS = ("flops", "values", "sequences", "layers", "ranked", "weights")


def made(amounts: Work, seconds: float, *, planned: float = 1.0):
    """A phase as it was planned and as a record has it: `planned` of what was made."""
    given = {name: value for name, value in vars(amounts).items() if name in AMOUNTS}
    less = {name: planned * value for name, value in given.items()}
    cost = Cost(flops=planned * amounts.flops)
    return Part(cost, Work(**less)), Cost(flops=amounts.flops, seconds=seconds)


def test_phases_that_make_the_same_passes_share_what_these_take():
    """And records say how much was made: ties scored again are no slower passes."""
    rng = np.random.default_rng(1)
    terms = {
        phase: Terms(flop=1e-11, value=2e-9, sequence=own, layer=own / 5)
        for phase, own in (("metrics", 1e-4), ("attack", 1e-3), ("rescore", 2e-3))
    }
    terms["attack"] = terms["attack"].model_copy(update={"ranked": 1e-8})
    machine = cpu_device(terms)
    costs, records = SimpleNamespace(units={}), {}
    for unit in range(30):
        parts, kept = {}, {}
        for phase in terms:
            drawn = rng.uniform(1, 10, 5) * [1e10, 1e7, 1e2, 1e3, 1e6]
            amounts = Work(**dict(zip(AMOUNTS[:5], drawn, strict=True)))
            seconds = phase_seconds(machine, phase, amounts)
            parts[phase], kept[phase] = made(
                amounts, seconds, planned=rng.uniform(0.5, 1)
            )
        costs.units[str(unit)] = UnitCost(parts, parts)
        ledger = SimpleNamespace(kept=kept)
        records[str(unit)] = SimpleNamespace(ledger=ledger)
    found = fit_phases([*terms], costs, records, {"flops": 5e-12}, but="0")
    for phase, own in terms.items():
        for name, value in own.model_dump().items():
            assert getattr(found[phase], name) == pytest.approx(value, abs=1e-14), name


def test_the_load_that_imports_is_no_measure_of_loads():
    weights = {"first": 1e6, "second": 1e6, "third": 4e6}
    costs, records = SimpleNamespace(units={}), {}
    for unit, count in weights.items():
        seconds = 1e-8 * count + 0.02 + 7.0 * (unit == "first")
        part, cost = made(Work(weights=count), seconds)
        if unit == "third":  # what no plan foresaw, another process had begun with
            cost = cost.model_copy(update={"flops": 1e6})
        costs.units[unit] = UnitCost({}, {"load": part})
        records[unit] = SimpleNamespace(ledger=SimpleNamespace(kept={"load": cost}))
    [found] = fit_phases(["load"], costs, records, {}, but="first").values()
    assert (found.weight, found.once) == pytest.approx((1e-8, 0.02))


def test_the_suite_that_calibrates_has_all_phases_at_three_sizes(tmp_path):
    suite = tmp_path / "calibration.yaml"
    suite.write_text(SUITE)
    experiment = identify(load_experiment(suite), tmp_path / "store")
    plan = make_plan(experiment)
    costs = plan_costs(plan, tmp_path / "store")
    sizes = {shape.parameters for shape in costs.shapes.values()}
    assert len(sizes) == 3
    phases = {phase for unit in costs.units.values() for phase in unit.whole}
    assert phases == {*get_args(Phase)}


def test_a_calibration_is_kept_and_is_the_default_device(
    cli, toy_suite, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert calibrated() is None
    device = cpu_device({"attack": Terms(flop=1.0)}, per_run_s=4321.0)
    monkeypatch.setattr("harness.running.calibrate", lambda say: device)

    made = cli("plan", toy_suite, "--json", "--calibrate")

    assert calibrated() == device
    assert json.loads(made.out)["device"]["per_run_s"] == 4321.0
    for choice in ((), ("--device", "cpu")):
        later = json.loads(cli("plan", toy_suite, "--json", *choice).out)
        assert later["device"] == json.loads(made.out)["device"]
    other = json.loads(cli("plan", toy_suite, "--json", "--device", "H100").out)
    assert other["device"]["name"] == "H100"


def test_a_gpu_that_an_earlier_version_calibrated_counts_as_none(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ceilings = {"float32": 50.0, "bfloat16": 700.0}
    keep_device(gpu_device("NVIDIA H100", ceilings, 80.0))
    assert calibrated() is None
    device = gpu_device("NVIDIA H100", {**ceilings, "tf32": 350.0}, 80.0)
    keep_device(device)
    assert calibrated() == device


def test_a_damaged_calibration_counts_as_none(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_device(cpu_device({}))
    (tmp_path / "harness" / "device.json").write_text("{}")
    assert calibrated() is None
