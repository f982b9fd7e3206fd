"""Reductions, gaps and changes carry intervals, each from its own rows."""

import numpy as np
import pytest

from harness import report
from harness.running import survey
from tests.run_fixtures import Story, deltas, read_all


@pytest.fixture(scope="module")
def run(written_runs):
    means = deltas(0.6, 0.2, 0.2, 0.1)
    return written_runs(Story(seeds=[1, 2, 3], documents=30, delta_loss=means))


@pytest.fixture(scope="module")
def rows(run):
    """Return the rows of each table, as dictionaries of cells."""
    made = report.build(survey(run))
    return {
        table.key: [
            dict(zip([x.name for x in table.columns], row, strict=True))
            for row in table.rows
        ]
        for table in made.tables
    }


def estimates(run, kind, label, name):
    """Return an estimate by arm and seed."""
    return {
        (x.arm.label, x.seed): x.results[label][name].value
        for x in read_all(run)
        if x.kind == kind and (kind == "variant" or x.attack.label == "hotflip")
    }


def test_gaps_of_metrics_are_paired(run, rows):
    table = {row["metric"].text: row["monotone"] for row in rows["gaps.Pythia_1.4B"]}
    for name in ("loss", "token_perplexity", "bits_per_byte"):
        known = estimates(run, "variant", "perplexity", name)
        apart = [known["monotone", s] - known["baseline", s] for s in (1, 2, 3)]
        cell = table[f"perplexity.{name}"]
        assert cell.value == pytest.approx(np.mean(apart))
        assert cell.interval[0] < cell.value < cell.interval[1]


def test_success_is_reduced_by_one_less_the_ratio_of_rates(run, rows):
    known = estimates(run, "cell", "attack", "success")
    arm, other = (
        np.mean([known[label, s] for s in (1, 2, 3)])
        for label in ("monotone", "baseline")
    )
    (row,) = rows["arms"]
    cell = row["success: reduced by"]
    assert cell.value == pytest.approx(1 - arm / other)
    assert 0 < cell.interval[0] < cell.value < cell.interval[1]


def test_seeds_stand_beside_each_other_with_their_spread(run, rows):
    known = estimates(run, "cell", "attack", "delta_loss")
    apart = [known["monotone", s] - known["baseline", s] for s in (1, 2, 3)]
    (row,) = rows["seeds"]
    for seed, value in zip((1, 2, 3), apart, strict=True):
        cell = row[f"dL difference: seed {seed}"]
        assert cell.value == pytest.approx(value)
        assert cell.interval[0] < value < cell.interval[1]
    spread = row["dL difference: sd over seeds"]
    assert spread.value == pytest.approx(np.std(apart, ddof=1))
    assert spread.interval[0] < spread.value < spread.interval[1]


def test_a_reduction_without_an_interval_is_not_shown(make_run):
    run = make_run(
        seeds=[1, 2, 3], delta_loss=deltas(-0.35, -9, -0.35, -9), documents=30
    )
    made = report.build(survey(run))
    table = next(x for x in made.tables if x.key == "arms")
    cell = table.rows[0][-1]
    assert cell.reason == "no bounded interval"
