"""The tables of operating characteristics, on a part of their grid.

A bound that holds for the true share is broken by a simulated one in one of 100,000
runs at most: the slack is the binomial's, not luck's.
"""

import json
from functools import partial

import numpy as np
import pytest
import scipy.stats
from click.testing import CliRunner

from benchmarks import verdicts

REPEATS = 1000
SMALL = verdicts.SMALL


def at_most(share):
    """Return the count that is exceeded in one of 100,000 runs if `share` is true."""
    return scipy.stats.binom.isf(1e-5 / len(SMALL), REPEATS, share)


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    return [
        (point, verdicts.Crossed.batch(verdicts.tables(point, REPEATS, rng)))
        for point in SMALL
    ]


def test_intervals_cover_92_to_99_percent(drawn):
    missed = [REPEATS - verdicts.covered(x, point).sum() for point, x in drawn]
    assert max(missed) <= at_most(0.08)
    assert min(missed) >= REPEATS - at_most(0.99)


@pytest.mark.parametrize(("contrasts", "limit"), [(1, 0.02), (6, 0.004)])
def test_harder_is_rarely_said_of_no_difference(drawn, contrasts, limit):
    said = [verdicts.harder(x, point, contrasts).sum() for point, x in drawn]
    assert max(said) <= at_most(limit)
    if contrasts == 1:
        assert np.mean(said) <= 0.012 * REPEATS


def test_a_difference_of_a_third_of_a_nat_is_found():
    says = partial(verdicts.harder, contrasts=6)
    (share,) = verdicts.simulate(says, [verdicts.PROMISED], REPEATS)
    assert share.said >= scipy.stats.binom.isf(1 - 1e-5, REPEATS, 0.9)


@pytest.mark.parametrize("shape", ["normal", "t3", "lognormal", "mirrored"])
def test_effects_have_mean_0_and_variance_1(shape):
    drawn = verdicts.effects(shape, np.random.default_rng(1), (400_000,))
    assert np.mean(drawn) == pytest.approx(0, abs=0.01)
    assert np.var(drawn) == pytest.approx(1, rel=0.15)


def test_the_number_of_processes_changes_nothing():
    points, says = SMALL[:3], verdicts.covered
    alone, spread = (verdicts.simulate(says, points, 1500, jobs) for jobs in (1, 2))
    assert alone == spread


def test_a_command_prints_its_table_writes_it_and_says_what_is_not_met(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(verdicts, "GRID", SMALL[:2])
    out = tmp_path / "coverage.json"
    arguments = ["coverage", "--repeats", "50", "--out", str(out)]
    assert CliRunner().invoke(verdicts.main, arguments).exit_code in (0, 1)
    written = json.loads(out.read_text())["coverage"]
    assert [cell["repeats"] for cell in written["cells"]] == [50, 50]
    monkeypatch.setattr(verdicts, "covered", lambda drawn, point: drawn.mean > 9)
    result = CliRunner().invoke(verdicts.main, arguments)
    assert result.exit_code == 1
    assert "not met" in result.output


# --- the whole rule ------------------------------------------------------------------

RUNS = 40
FEW = [verdicts.Point(24, 3, 0.1, 0.3, 0.2), verdicts.Point(24, 5, 0.0, 0.1, 0.3)]


def exceeded(share):
    """Return the count that is exceeded in one of 100,000 runs if `share` is true."""
    return scipy.stats.binom.isf(1e-5 / len(FEW), RUNS, share)


@pytest.mark.parametrize(
    ("says", "change", "arms", "share"),
    [
        (verdicts.directed, verdicts.identical, 6, 0.05),
        (verdicts.masked, verdicts.identical, 1, 0.025),
        (verdicts.masked, verdicts.halved, 1, 0.025),
        (verdicts.equivalent, verdicts.at_the_margin, 1, 0.05),
    ],
)
def test_the_rule_seldom_says_what_is_not_so(says, change, arms, share):
    found = verdicts.judge_runs(says, change, arms, FEW, RUNS)
    assert max(x.said for x in found) <= exceeded(share)


def test_the_rule_says_what_is_so():
    """The runs are such that a true difference is called one."""
    found = verdicts.judge_runs(verdicts.directed, verdicts.halved, 1, FEW[1:], RUNS)
    assert found[0].value > 0.9


def test_of_few_seeds_nothing_is_said_of_a_treatment():
    points = [verdicts.Point(20, 1, 0.3, 0.1, 0.1)]
    found = verdicts.judge_runs(verdicts.directed, verdicts.identical, 1, points, 4)
    assert found[0].said == 0
