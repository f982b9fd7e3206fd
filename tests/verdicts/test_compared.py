"""Numbers that compare two arms: intervals, p, and how sure they are of nothing."""

import math

import numpy as np
import pytest
import scipy.stats

from harness.records import Crossed
from harness.verdicts.compared import (
    Difference,
    EverySeed,
    OverSeeds,
    Reduction,
    grown,
)

RNG = np.random.default_rng(0)
TABLE = RNG.normal(0.1, 0.2, (3, 30)) + RNG.normal(0, 0.2, 30)


def difference(table=TABLE, **told):
    told = {"most": table, "least": table} | told
    mean = float(table.mean())
    return Difference(value=mean, sides=(mean, 0.0), seeds=len(table), **told)


def reduction(arm, other, **told):
    tables = {"arm_most": arm, "arm_least": arm, "other_most": other}
    tables |= {"other_least": other} | told
    sides = float(arm.mean()), float(other.mean())
    value = 1 - sides[0] / sides[1]
    told = {"value": value, "sides": sides, "seeds": len(arm), "errors": 0.0}
    return Reduction(**told, **tables)


def shares(rng, arm, other, seeds=3, n=40, seed_sd=0.2, document_sd=1.0):
    """Draw successes of two arms, with effects of seeds and documents (probit)."""
    document = document_sd * rng.standard_normal(n)
    spread = math.sqrt(1 + seed_sd**2 + document_sd**2)

    def draw(share):
        own = seed_sd * rng.standard_normal((seeds, 1)) + document
        level = spread * scipy.stats.norm.ppf(share)
        return (level + own + rng.standard_normal((seeds, n)) > 0).astype(float)

    return draw(arm), draw(other)


def test_a_difference_has_the_interval_of_its_table():
    assert difference().interval() == Crossed.of(TABLE).interval()
    assert difference().p("above", 0.05) == Crossed.of(TABLE).p_above(0.05)


def test_a_relative_change_is_the_exponential_of_a_difference():
    low, high = Crossed.of(TABLE).interval()
    relative = difference(relative=True)
    assert relative.interval() == pytest.approx((math.exp(low) - 1, math.exp(high) - 1))
    found = Crossed.of(TABLE).p_below(math.log(1.1))
    assert relative.p("below", 0.1) == pytest.approx(found)
    for least in (-1.0, -1.5):  # nothing changes by less than -100 %
        assert relative.p("above", least) < 1e-6


CASES = {
    "difference": difference(),
    "relative": difference(relative=True),
    "reduction": reduction(*shares(np.random.default_rng(3), 0.3, 0.7)),
    "seeds": OverSeeds(
        value=0.2,
        sides=(1.2, 1.0),
        differences=np.array([0.1, 0.2, 0.3]),
        error=0.02,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_p_is_2_5_percent_at_the_ends_of_a_95_percent_interval(name):
    found = CASES[name]
    low, high = found.interval()
    assert low < found.value < high
    assert found.p("above", low) == pytest.approx(0.025, rel=1e-3)
    assert found.p("below", high) == pytest.approx(0.025, rel=1e-3)


def test_errors_count_against_whatever_is_claimed():
    apart = np.zeros_like(TABLE)
    apart[0, 0] = 5.0
    found = difference(most=TABLE + apart, least=TABLE - apart)
    low, high = Crossed.of(TABLE).interval()
    assert found.interval()[0] < low
    assert found.interval()[1] > high
    arm, other = shares(np.random.default_rng(4), 0.3, 0.7)
    erred = arm.copy()
    erred[:, :4] = 1
    whole = reduction(arm, other)
    worse = reduction(arm, other, arm_most=erred)
    assert worse.interval()[0] < whole.interval()[0]
    assert worse.p("above", 0.3) > whole.p("above", 0.3)
    assert worse.p("below", 0.9) == whole.p("below", 0.9)
    below, above = found.p("below", 0.2), found.p("above", 0.0)
    assert below == pytest.approx(Crossed.of(TABLE + apart).p_below(0.2))
    assert above == pytest.approx(Crossed.of(TABLE - apart).p_above(0.0))


@pytest.mark.parametrize("arm", [0.0, 1.0])
def test_where_all_documents_agree_nothing_is_certain(arm):
    found = reduction(np.full((3, 20), arm), np.ones((3, 20)))
    low, high = found.interval()
    assert low <= 1 - arm <= high
    assert high - low > 0.1  # exact bounds of either share, of 20: 17 points wide
    assert reduction(np.zeros((3, 2)), np.ones((3, 2))).p("above", 0.5) > 0.025
    single = reduction(np.full((1, 20), arm), np.ones((1, 20))).interval()
    assert single is None or (single[1] - single[0] > 0.1 and single[0] <= 1 - arm)


def test_a_reduction_of_rare_successes_has_no_interval():
    other = np.zeros((3, 40))
    other[:, 0] = 1
    assert reduction(np.zeros((3, 40)), other).interval() is None


@pytest.mark.parametrize(
    ("share", "true", "seeds"),
    [(0.9, 0.5, 3), (0.5, 0.0, 5), (0.9, 0.9, 3)],
)
def test_intervals_of_reductions_cover(share, true, seeds):
    """At a nominal 95 %; a bound of 99.9 % on what 200 runs can show."""
    rng = np.random.default_rng(5)
    runs, missed = 200, {"below": 0, "above": 0}
    for _ in range(runs):
        arm, other = shares(rng, share * (1 - true), share, seeds)
        low, high = reduction(arm, other).interval() or (-math.inf, 1)
        missed["below"] += high < true
        missed["above"] += low > true
    most = scipy.stats.binom.ppf(0.999, runs, 0.025)
    assert max(missed.values()) <= most


def test_claims_at_the_bound_are_rarely_supported():
    """A reduction of just 50 %: "reduced by 50 %" is supported in 2.5 %, or less."""
    rng = np.random.default_rng(6)
    runs = 300
    found = [
        reduction(*shares(rng, 0.4, 0.8, n=60)).p("above", 0.5) <= 0.025
        for _ in range(runs)
    ]
    assert sum(found) <= scipy.stats.binom.ppf(0.999, runs, 0.025)


@pytest.mark.parametrize("seeds", [3, 4])
def test_without_rows_seeds_alone_are_students_t(seeds):
    apart = np.array([0.1, 0.25, 0.3, 0.12])[:seeds]
    found = OverSeeds(value=0.0, sides=(0.0, 0.0), differences=apart, error=None)
    test = scipy.stats.ttest_1samp(apart, 0.1, alternative="greater")
    assert found.p("above", 0.1) == pytest.approx(test.pvalue)
    interval = scipy.stats.ttest_1samp(apart, 0).confidence_interval()
    assert found.interval() == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(
    ("error", "wide"), [(None, None), (0.1, 2 * scipy.stats.norm.ppf(0.975) * 0.1)]
)
def test_two_seeds_without_rows_have_the_metrics_own_error_alone(error, wide):
    apart = np.array([0.1, 0.3])
    found = OverSeeds(value=0.2, sides=(0.0, 0.0), differences=apart, error=error)
    interval = found.interval()
    assert (interval and interval[1] - interval[0]) == (wide and pytest.approx(wide))
    assert (found.p("above", -10) == 1) is (error is None)


def test_seeds_that_do_not_vary_give_no_interval():
    apart = np.full(3, 0.25)
    found = OverSeeds(value=0.25, sides=(1, 0.75), differences=apart, error=None)
    assert (found.interval(), found.p("above", 0.0)) == (None, 1.0)


def test_rounding_is_as_large_as_the_larger_side():
    """Of a number near a million against 0, the next float is 1e-10 away."""
    apart = 1e6 + np.array([0, 1e-10, 0])
    assert apart.std() > 1e-11
    found = OverSeeds(value=1e6, sides=(1e6, 0.0), differences=apart, error=None)
    assert found.interval() is None


def test_seeds_that_vary_by_rounding_alone_give_no_interval():
    sides = np.array([[0.75, 0.7], [0.85, 0.8], [0.9, 0.85]])
    apart = sides[:, 0] - sides[:, 1]
    assert apart.std() > 0
    told = {"sides": tuple(sides.mean(axis=0)), "differences": apart, "error": None}
    found = OverSeeds(value=float(apart.mean()), **told)
    assert (found.interval(), found.p("above", 0.04)) == (None, 1.0)
    ratios = np.log(np.array([0.33, 0.44, 0.77]) / np.array([0.3, 0.4, 0.7]))
    assert ratios.std() > 0
    found = OverSeeds(
        value=0.1, sides=(1, 1), differences=ratios, error=None, relative=True
    )
    assert (found.interval(), found.p("above", 0.0)) == (None, 1.0)


def test_under_every_seed_the_least_sure_one_counts():
    each = [difference(TABLE[i : i + 1] - 0.15) for i in range(3)]
    found = EverySeed(each, worst=1)
    assert found.p("above", 0.0) == max(x.p("above", 0.0) for x in each)
    refuted = [x.p("below", 0.0) for x in each]
    assert 3 * min(refuted) < 1 < 3 * max(refuted)
    assert found.p_of_any("below", 0.0) == 3 * min(refuted)
    assert found.p_of_any("above", 9.0) == 1
    assert (found.value, found.interval()) == (each[1].value, each[1].interval())


def test_under_every_seed_the_least_is_known_of_any():
    """The fewest units, as equal or not, and the most errors."""
    told = [(30, 25.0, 0.0), (25, 21.5, 0.02), (28, 26.0, 0.01)]
    each = [
        difference(TABLE[:1], grouped=units, effective=effective, errors=errors)
        for units, effective, errors in told
    ]
    found = EverySeed(each, worst=0)
    assert (found.units, found.effective, found.errors) == (25, 21.5, 0.02)


def test_units_are_those_of_a_table_or_those_that_were_grouped():
    assert (difference().units, difference(grouped=1203).units) == (30, 1203)
    assert reduction(np.ones((3, 20)), np.ones((3, 20))).units == 20


BOOTSTRAP = "studentized bootstrap over documents"
EFFECTS = "two-way random effects over documents and"
FIELLER = "1 - paired ratio (Fieller, two units added)"


def by_seed(seeds, **told):
    apart = np.linspace(0, 1, seeds)
    return OverSeeds(value=0.5, sides=(1, 0.5), differences=apart, **told)


@pytest.mark.parametrize(
    ("found", "method"),
    [
        (difference(TABLE[:2]), f"paired difference; {BOOTSTRAP}"),
        (difference(), f"paired difference; {EFFECTS} seeds"),
        (difference(relative=True), f"paired log ratio; {EFFECTS} seeds"),
        (
            Difference(value=0, sides=(0, 0), seeds=1, most=TABLE, least=TABLE),
            f"paired difference; {EFFECTS} searches",
        ),
        (reduction(TABLE[:1], TABLE[:1]), f"{FIELLER}; {BOOTSTRAP}"),
        (reduction(TABLE, TABLE), f"{FIELLER}; {EFFECTS} seeds"),
        (by_seed(2, error=None), "difference; no interval"),
        (by_seed(2, error=0.0), "difference; the metric's own error"),
        (by_seed(3, error=None), "difference; Student's t over seeds"),
        (
            by_seed(3, error=0.1, relative=True),
            "log ratio; Student's t over seeds and the metric's own error",
        ),
    ],
)
def test_a_method_names_what_an_interval_is_made_of(found, method):
    assert found.method == method


def test_an_interval_that_is_open_on_one_side_is_none():
    """A single document that differs: a third of all resamples lack it."""
    lone, varied = np.eye(1, 20), TABLE[:1, :20]
    assert difference(varied).interval() is not None
    for sides in ((lone, varied), (varied, lone)):
        found = difference(varied, **dict(zip(("most", "least"), sides, strict=True)))
        assert found.interval() is None


@pytest.mark.parametrize(("rare", "low"), [(5, -45.3), (4, None)])
def test_a_ratio_that_may_be_above_64_has_no_interval(rare, low):
    """Successes on all of 100 documents, and on a few of them on the other arm."""
    other = np.tile(np.arange(100) < rare, (3, 1)).astype(float)
    found = reduction(np.ones((3, 100)), other).interval()
    assert (found and found[0]) == (low and pytest.approx(low, abs=0.1))


@pytest.mark.parametrize("bound", [-0.5, 0.0, 0.3])
def test_two_documents_are_added_to_a_reduction(bound):
    """One success more on either arm, of two documents more (Agresti and Min 2005)."""
    arm, other = shares(np.random.default_rng(7), 0.3, 0.7)
    found = reduction(arm, other)
    means = (arm.sum(axis=1) + 1 - (1 - bound) * (other.sum(axis=1) + 1)) / 42
    for side in ("below", "above"):
        assert found.table(side, bound).mean == pytest.approx(means.mean())


def test_a_change_is_finite_however_large_its_logarithm():
    assert grown(600.0) == pytest.approx(math.exp(600))
    assert math.isfinite(grown(1e4))
