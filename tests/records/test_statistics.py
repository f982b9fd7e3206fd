"""Statistics against statsmodels, closed forms and enumeration."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from harness.records import statistics


@pytest.mark.parametrize(
    ("successes", "n"),
    [(0, 7), (0, 12), (1, 7), (3, 10), (50, 100), (11, 12), (12, 12), (500, 1000)],
)
def test_wilson_agrees_with_statsmodels(successes, n):
    estimate = statistics.wilson(successes, n)
    assert estimate.value == successes / n
    expected = proportion_confint(successes, n, method="wilson")
    assert estimate.interval == pytest.approx(expected, abs=1e-9)
    assert (estimate.interval[0] == 0) == (successes == 0)
    assert (estimate.interval[1] == 1) == (successes == n)


def test_bootstrap_mean_matches_the_normal_interval_of_many_values():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=2000)
    estimate = statistics.bootstrap_mean(values, unit="nats/token")
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.interval == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.1 * half
    )


def test_bootstrap_of_three_values_matches_enumeration():
    values = np.array([0.0, 1.0, 5.0])
    means = [np.mean(draw) for draw in itertools.product(values, repeat=3)]
    estimate = statistics.bootstrap_mean(values, unit="x")
    expected = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    assert estimate.interval == pytest.approx(expected)


def test_clustering_widens_the_interval_by_the_design_effect():
    by_document = np.random.default_rng(1).normal(size=400)
    values = np.repeat(by_document, 9)
    clusters = np.repeat(np.arange(400), 9)
    alone = statistics.bootstrap_mean(values, unit="x")
    clustered = statistics.bootstrap_mean(values, clusters.tolist(), unit="x")
    assert clustered.value == pytest.approx(alone.value)
    assert clustered.n == alone.n == 3600
    assert _width(clustered) / _width(alone) == pytest.approx(3.0, rel=0.1)


def test_bootstrap_ratio_weighs_units_by_their_denominators():
    estimate = statistics.bootstrap_ratio([2.0, 90.0], [1.0, 9.0], unit="x")
    assert estimate.value == pytest.approx(9.2)
    assert estimate.interval == pytest.approx((2.0, 10.0))


def test_bootstrap_ratio_transforms_value_and_interval():
    rng = np.random.default_rng(3)
    tokens = rng.integers(5, 50, size=80).astype(float)
    nats = tokens * rng.normal(3.0, 0.3, size=80)
    loss = statistics.bootstrap_ratio(nats, tokens, unit="nats/token")
    perplexity = statistics.bootstrap_ratio(nats, tokens, np.exp, unit="perplexity")
    assert perplexity.value == pytest.approx(math.exp(loss.value))
    assert perplexity.interval == pytest.approx(np.exp(loss.interval), rel=1e-3)


def test_what_cannot_be_told_is_null_with_a_reason():
    nothing = statistics.wilson(0, 0)
    beyond = statistics.bootstrap_ratio([9e3], [10.0], np.exp, unit="perplexity")
    one = statistics.bootstrap_ratio([4.0], [2.0], unit="x")
    assert nothing.value is beyond.value is one.interval is None
    assert nothing.n == 0
    assert one.value == 2.0
    assert nothing.reason
    assert beyond.reason
    assert one.reason


def test_a_denominator_of_zero_is_refused():
    with pytest.raises(ValueError, match="positive"):
        statistics.bootstrap_ratio([1.0, 2.0], [1.0, 0.0], unit="x")


def test_the_same_rows_give_the_same_interval():
    values = np.random.default_rng(4).normal(size=50)
    first, second = (statistics.bootstrap_mean(values, unit="x") for _ in range(2))
    assert first == second


def test_paired_difference_ignores_what_both_share():
    rng = np.random.default_rng(5)
    shared, gain = rng.normal(0, 100, size=300), rng.normal(0.2, 0.1, size=300)
    estimate = statistics.paired_difference(shared + gain, shared, unit="nats/token")
    assert estimate.value == pytest.approx(gain.mean())
    assert _width(estimate) == pytest.approx(3.92 * 0.1 / math.sqrt(300), rel=0.15)


@pytest.mark.parametrize("seed", range(4))
def test_holm_agrees_with_statsmodels(seed):
    p_values = np.random.default_rng(seed).random(7) ** 3
    expected = multipletests(p_values, method="holm")[1]
    assert statistics.holm(p_values.tolist()) == pytest.approx(expected)


def test_no_adjusted_p_is_above_1():
    assert statistics.holm([0.9, 0.6]) == [1.0, 1.0]


def test_spread_over_seeds_uses_the_sample_deviation_and_has_none_of_one():
    spread = statistics.across_seeds([1.0, 2.0, 4.0])
    assert spread.mean == pytest.approx(7 / 3)
    assert spread.std == pytest.approx(math.sqrt((16 + 1 + 25) / 9 / 2))
    assert spread.n == 3
    assert statistics.across_seeds([1.0, 3.0]).std == pytest.approx(math.sqrt(2))
    assert statistics.across_seeds([1.5]) == statistics.Spread(1.5, None, 1)
    assert statistics.across_seeds([]) == statistics.Spread(None, None, 0)


def _width(estimate: statistics.Estimate) -> float:
    low, high = estimate.interval
    return high - low


@pytest.mark.parametrize("clusters", ["aabbcd", "aaabbb"])
@pytest.mark.parametrize("shift", [-0.5, 0.4])
def test_paired_p_is_the_t_test_of_the_clusters_means(clusters, shift):
    values = np.random.default_rng(6).normal(size=6) + shift
    means = [
        np.mean([v for v, c in zip(values, clusters, strict=True) if c == name])
        for name in sorted(set(clusters))
    ]
    expected = scipy.stats.ttest_1samp(means, 0.0, alternative="greater").pvalue
    assert statistics.paired_p(values, clusters) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "p"),
    [([0.3] * 3, 0.0), ([0.0] * 3, 1.0), ([-0.3] * 3, 1.0), ([9.0], 1.0)],
)
def test_without_spread_the_sign_decides_and_one_cluster_says_nothing(values, p):
    assert statistics.paired_p(values, range(len(values))) == p


def test_no_value_and_one_have_no_interval():
    nothing = statistics.bootstrap_mean([], unit="x")
    assert (nothing.value, nothing.n, nothing.reason) == (None, 0, "no values")
    assert (
        nothing.method == "mean; percentile bootstrap over documents (2000 resamples)"
    )
    one = statistics.bootstrap_mean([4.0], unit="x")
    assert (one.value, one.interval) == (4.0, None)
    two = statistics.bootstrap_mean([4.0, 6.0], unit="x")
    assert (two.value, two.interval, two.level) == (5.0, (4.0, 6.0), 0.95)


def test_an_interval_beyond_floats_is_null_though_its_value_is_not():
    found = statistics.bootstrap_ratio([1.0, 900.0], [1.0, 1.0], np.exp, unit="x")
    assert found.value == pytest.approx(math.exp(450.5))
    assert found.interval is None
    assert found.reason == "the interval is beyond the range of floats"


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match="as many denominators"):
        statistics.bootstrap_ratio([1.0, 2.0], [1.0], unit="x")
    with pytest.raises(ValueError, match="as many denominators"):
        statistics.bootstrap_ratio([[1.0]], [[1.0]], unit="x")
    with pytest.raises(ValueError, match="as many labels"):
        statistics.bootstrap_mean([1.0, 2.0], "a", unit="x")


@pytest.mark.parametrize(("size", "scale"), [(2, 1.0), (7, 1e-6), (40, 1.0), (600, 50)])
def test_intervals_are_those_of_scipys_bootstrap(size, scale):
    """600 clusters take more than one batch of resamples."""
    rng = np.random.default_rng(size)
    values, weights = scale * rng.standard_normal(size), rng.uniform(0.1, 1, size)

    def ratio(chosen, axis):
        return values[chosen].sum(axis) / weights[chosen].sum(axis)

    expected = scipy.stats.bootstrap(
        (np.arange(size),),
        ratio,
        n_resamples=statistics.RESAMPLES,
        batch=max(1, statistics._GATHERED_AT_ONCE // size),
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(statistics._SEED),
    )
    found = statistics.bootstrap_ratio(values, weights, unit="nats")
    assert found.interval == pytest.approx(expected.confidence_interval, rel=1e-13)


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_the_interval_of_a_standard_deviation_is_chi_squares(level):
    values = [0.1, 0.4, 0.2, 0.7]
    tails = scipy.stats.chi2.ppf([(1 + level) / 2, (1 - level) / 2], 3)
    expected = np.std(values, ddof=1) * np.sqrt(3 / tails)
    assert statistics.spread_interval(values, level) == pytest.approx(tuple(expected))
    assert statistics.spread_interval(values) == statistics.spread_interval(
        values, statistics.LEVEL
    )
