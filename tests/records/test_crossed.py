"""Seeds crossed with documents, against anova, t-tests, root finding and simulation."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats
import statsmodels.api
import statsmodels.formula.api
from statsmodels.stats.proportion import proportion_confint

from harness.records import crossed as crossed_module
from harness.records.crossed import Crossed, Design, clopper_pearson

LEVELS = [0.6, 0.9, 0.975, 0.99, 1 - 0.01 / 6]


def drawn(seeds, n, rng, *, mean=0.0, of_seeds=0.1, of_documents=0.3, residual=0.2):
    return (
        mean
        + rng.normal(0, of_seeds, (seeds, 1))
        + rng.normal(0, of_documents, n)
        + rng.normal(0, residual, (seeds, n))
    )


def skewed(seeds, n, seed=0):
    rng = np.random.default_rng(seed)
    return 0.4 + rng.lognormal(size=n) / 4 + drawn(seeds, n, rng)


@pytest.mark.parametrize(("seeds", "n"), [(2, 2), (2, 12), (3, 12), (5, 2), (5, 12)])
def test_mean_squares_are_those_of_an_analysis_of_variance(seeds, n):
    table = skewed(seeds, n)
    rows = pd.DataFrame(
        [(s, i, value) for (s, i), value in np.ndenumerate(table)],
        columns=["seed", "document", "value"],
    )
    fit = statsmodels.formula.api.ols("value ~ C(seed) + C(document)", rows).fit()
    expected = statsmodels.api.stats.anova_lm(fit)["mean_sq"].tolist()
    crossed = Crossed.of(table)
    squares = crossed.ms_seed, crossed.ms_document, crossed.ms_residual
    assert squares == pytest.approx(expected)
    assert crossed.mean == pytest.approx(rows["value"].mean())
    of_seeds, of_documents, residual = crossed.components
    assert residual + n * of_seeds == pytest.approx(max(expected[0], expected[2]))
    documents = max(expected[1], expected[2])
    assert residual + seeds * of_documents == pytest.approx(documents)


def test_components_are_never_negative():
    """Seeds and documents here differ less than residuals make them differ."""
    table = np.array([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]])
    assert Crossed.of(table).components == (0.0, 0.0, pytest.approx(8 / 3))


@pytest.mark.parametrize("level", LEVELS)
def test_equal_seeds_and_symmetric_documents_give_the_t_test(level):
    half = np.random.default_rng(1).normal(size=10)
    values = 0.3 + np.concatenate([half, -half])
    crossed = Crossed.of(np.tile(values, (4, 1)))
    expected = scipy.stats.ttest_1samp(values, 0.1, alternative="greater")
    bound = expected.confidence_interval(level).low
    assert crossed.lower(level) == pytest.approx(bound)
    assert crossed.p_above(0.1) == pytest.approx(expected.pvalue)
    assert crossed.p_below(0.1) == pytest.approx(1 - expected.pvalue)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("seeds", "n"), [(3, 24), (5, 8), (8, 3)])
def test_bounds_solve_the_equation_of_the_transformed_mean(level, seeds, n):
    """t(u) = +-q, with every symbol written out from its definition."""
    table = skewed(seeds, n)
    mean, documents, by_seed = table.mean(), table.mean(0), table.mean(1)
    ms_seed = n * by_seed.var(ddof=1)
    ms_document = seeds * documents.var(ddof=1)
    residual = table - documents - by_seed[:, None] + mean
    ms_residual = np.sum(residual**2) / ((seeds - 1) * (n - 1))
    counted_twice = ms_residual * min(1, ms_residual / max(ms_seed, ms_document)) ** 3
    v = (ms_seed + ms_document - counted_twice) / (n * seeds)
    g = np.mean((documents - mean) ** 3) / (n**2 * v**1.5)
    t_seeds, t_documents = scipy.stats.t.ppf(level, [seeds - 1, n - 1])
    squares = ms_seed * t_seeds**2 + ms_document * t_documents**2
    q = math.sqrt(squares / (ms_seed + ms_document))

    def transformed(mu):
        u = (mean - mu) / math.sqrt(v)
        return u + g * u**2 / 3 + g**2 * u**3 / 27 + g / 6

    low = scipy.optimize.brentq(lambda mu: transformed(mu) - q, -1e4, 1e4)
    high = scipy.optimize.brentq(lambda mu: transformed(mu) + q, -1e4, 1e4)
    crossed = Crossed.of(table)
    assert crossed.lower(level) == pytest.approx(low)
    assert crossed.upper(level) == pytest.approx(high)
    assert crossed.interval(2 * level - 1) == pytest.approx((low, high))


def test_the_variance_of_residuals_alone_is_at_least_half_of_what_is_counted():
    """Also where a residual is larger than both mean squares."""
    table = np.random.default_rng(8).normal(size=(3, 12))
    table -= 0.9 * (table.mean(0) + table.mean(1, keepdims=True) - table.mean())
    crossed = Crossed.of(table)
    assert crossed.ms_residual > 4 * max(crossed.ms_seed, crossed.ms_document)
    half = (crossed.ms_seed + crossed.ms_document) / 2
    assert crossed.variance == pytest.approx(half / table.size)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("seeds", "n"), [(3, 24), (5, 24), (3, 2)])
def test_p_is_the_level_at_which_the_bound_meets_the_mean(level, seeds, n):
    crossed = Crossed.of(skewed(seeds, n))
    assert crossed.p_above(crossed.lower(level)) == pytest.approx(1 - level)
    assert crossed.p_below(crossed.upper(level)) == pytest.approx(1 - level)
    assert crossed.p_above(crossed.mean - 1e3) < 0.1
    assert crossed.p_above(crossed.mean + 1e3) > 0.9
    assert crossed.interval() == crossed.interval(0.95)


@pytest.mark.parametrize("level", [0.6, 0.9, 0.975, 0.99, 0.9999])
@pytest.mark.parametrize(("seeds", "scale"), [(1, 1), (2, 1), (1, 1e-6)])
def test_the_bootstraps_p_is_the_level_just_beyond_its_bound(level, seeds, scale):
    """A p is a multiple of 1 / 10,000, and steps up at the bound of that level."""
    crossed = Crossed.of(scale * skewed(seeds, 24))
    step = 1e-9 * scale
    low, high = crossed.lower(level), crossed.upper(level)
    assert -math.inf < low < high < math.inf
    p = crossed.p_above(low - step), crossed.p_below(high + step)
    assert p == pytest.approx((1 - level, 1 - level), abs=1e-9)
    assert min(crossed.p_above(low + step), crossed.p_below(high - step)) > 1 - level
    assert crossed.interval() == crossed.interval(0.95)


def test_the_bootstrap_has_no_bound_beyond_its_resamples():
    crossed = Crossed.of(skewed(1, 24))
    assert crossed.lower(0.29995) == crossed.lower(0.3) < crossed.lower(0.2999)
    assert crossed.interval(1 - 1e-4) == (-math.inf, math.inf)
    tables = np.array([skewed(1, 24), skewed(1, 24, 1)])
    assert Crossed.batch(tables).upper(1 - 1e-5).tolist() == [math.inf] * 2
    assert crossed.p_above(-1e9) == pytest.approx(1e-4)


@pytest.mark.parametrize("of_seeds", [0, 0.01, 100])
@pytest.mark.parametrize("sign", [-1, 1])
def test_p_inverts_the_bound_wherever_the_variance_is(of_seeds, sign):
    """Equal seeds and equal documents included, where one t-test alone decides."""
    effect = np.array([[-1.0], [0.0], [1.0]]) * of_seeds
    crossed = Crossed.of(np.random.default_rng(6).normal(size=12) + effect)
    for level in (0.5, 0.5 + 1e-9, 0.8, 0.999, 1 - 1e-9):
        bound = crossed.lower(level) if sign > 0 else crossed.upper(level)
        p = crossed.p_above(bound) if sign > 0 else crossed.p_below(bound)
        assert p == pytest.approx(1 - level, rel=1e-5)


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_a_table_turned_around_has_its_bounds_turned_around(seeds):
    table = skewed(seeds, 9)
    there, back = Crossed.of(table), Crossed.of(-table)
    assert there.lower(0.99) == pytest.approx(-back.upper(0.99), rel=1e-6)
    assert there.p_above(0.2) == pytest.approx(back.p_below(-0.2), rel=1e-6)


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_many_tables_at_once_are_each_as_alone(seeds):
    rng = np.random.default_rng(2)
    tables = np.array([drawn(seeds, 11, rng, mean=0.1) for _ in range(5)])
    many, each = Crossed.batch(tables), [Crossed.of(table) for table in tables]
    for ask in (
        lambda c: c.lower(0.99),
        lambda c: c.upper(0.9),
        lambda c: c.p_above(),
        lambda c: c.variance,
        lambda c: c.detectable(0.99),
    ):
        assert ask(many).tolist() == pytest.approx([ask(one) for one in each])
    pairs = Crossed.batch(np.stack([tables, tables + 1]))
    assert pairs.p_above(1.0)[1] == pytest.approx(many.p_above())


def test_documents_of_one_seed_are_resampled_and_studentized():
    """Against every resample of five documents there is, within the draw's error."""
    values = np.array([0.2, 0.3, -0.1, 1.0, 0.35])
    centre, n = values.mean(), len(values)
    t = (centre - 0.1) / (values.std(ddof=1) / math.sqrt(n))
    extreme = 0
    for draw in itertools.product(values, repeat=n):
        spread = np.std(draw, ddof=1) / math.sqrt(n)
        extreme += spread < 1e-9 or (np.mean(draw) - centre) / spread >= t
    crossed = Crossed.of(values[None])
    assert crossed.p_above(0.1) == pytest.approx(extreme / n**n, abs=0.015)


def test_a_resample_as_far_off_as_what_was_observed_counts():
    """Of two documents a resample has no spread, or the very mean observed."""
    crossed = Crossed.of([[0.0, 1.0]])
    assert crossed.p_above(0.5) == crossed.p_below(0.5) == 1


def test_two_seeds_speak_of_their_documents_alone():
    table = skewed(1, 20) + np.array([[0.0], [0.5]])
    alone = Crossed.of(table.mean(0, keepdims=True))
    assert Crossed.of(table).interval() == pytest.approx(alone.interval())
    assert Crossed.of(table).variance == pytest.approx(table[0].var(ddof=1) / 20)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (1, 1), (3, 1)])
def test_no_document_or_one_says_nothing(shape):
    crossed = Crossed.of(np.ones(shape))
    assert crossed.interval() == (-math.inf, math.inf)
    assert crossed.p_above() == crossed.p_below() == 1.0
    assert math.isnan(crossed.detectable(0.99))
    assert crossed.n == int(0 not in shape)
    assert Crossed.batch(np.ones((4, *shape))).p_above().tolist() == [1.0] * 4


@pytest.mark.parametrize("shape", [(1, 8), (3, 8)])
@pytest.mark.parametrize(("value", "above", "below"), [(0.1, 0, 1), (0, 1, 1)])
def test_equal_values_are_their_own_bounds(shape, value, above, below):
    crossed = Crossed.of(np.full(shape, value))
    assert crossed.interval() == pytest.approx((value, value))
    assert (crossed.p_above(), crossed.p_below()) == (above, below)
    assert crossed.p_above(value) == crossed.p_below(value) == 1
    assert crossed.detectable(0.99) == pytest.approx(0)


def test_values_that_are_not_finite_or_no_table_are_refused():
    with pytest.raises(ValueError, match="finite"):
        Crossed.of([[1.0, math.nan]])
    with pytest.raises(ValueError, match="finite"):
        Crossed.batch([[[1.0, math.nan]], [[1.0, 2.0]]])
    with pytest.raises(ValueError, match="seeds by documents"):
        Crossed.of([1.0, 2.0])
    with pytest.raises(ValueError, match="seeds by documents"):
        Crossed.batch([[1.0, 2.0]])


def test_far_p_values_stay_finite_and_ordered():
    table = drawn(3, 30, np.random.default_rng(3), of_seeds=0)
    p_values = [Crossed.of(table + shift).p_above() for shift in (1, 3, 10, 1e3, 1e9)]
    assert p_values == sorted(p_values, reverse=True)
    assert 0 < p_values[-1] < 1e-12


@pytest.mark.parametrize(
    ("seeds", "n", "of_seeds"), [(3, 24, 0.1), (5, 200, 0.05), (2, 24, 0.3)]
)
def test_the_detectable_difference_is_found_as_often_as_it_says(seeds, n, of_seeds):
    """4,000 tables: the standard error of a share of 0.8 is 0.006."""
    rng = np.random.default_rng(4)
    size = 4000 if seeds > 2 else 400
    pilot = Crossed.of(drawn(40, 400, rng, of_seeds=of_seeds))
    true = pilot.detectable(0.99, 0.8, seeds=seeds, documents=n)
    scope = of_seeds if seeds > 2 else 0
    tables = np.array(
        [drawn(seeds, n, rng, mean=true, of_seeds=scope) for _ in range(size)]
    )
    assert np.mean(Crossed.batch(tables).lower(0.99) > 0) == pytest.approx(
        0.8, abs=0.05
    )


@pytest.mark.parametrize("power", [0.5, 0.8, 0.99])
@pytest.mark.parametrize("level", [0.9, 0.99, 0.9983])
@pytest.mark.parametrize(
    ("seeds", "n", "components"),
    [
        (4, 7, (0.02, 0.05, 0.03)),
        (3, 5, (0.0, 0.0, 0.2)),
        (3, 40, (0.5, 0.0, 0.0)),
        (5, 4, (0.0, 0.5, 0.1)),
        (2, 6, (0.3, 0.05, 0.03)),
        (1, 9, (0.0, 0.05, 0.0)),
    ],
)
def test_the_power_of_a_design_is_that_of_drawn_mean_squares(
    seeds, n, components, level, power
):
    """The mean squares are drawn as the multiples of chi^2 that they are."""
    difference = Design(seeds, n).detectable(components, level, power)
    of_seeds, of_documents, residual = components
    rng = np.random.default_rng(7)
    ms_document = residual + seeds * of_documents
    drawn = ms_document * rng.chisquare(n - 1, 100_000) / (n - 1)
    t_seeds, t_documents = scipy.stats.t.ppf(level, [max(seeds - 1, 1), n - 1])
    if seeds < 3:
        error, half = ms_document, drawn * t_documents**2
    else:
        ms_seed = residual + n * of_seeds
        error = ms_seed + ms_document - residual
        ours = ms_seed * rng.chisquare(seeds - 1, 100_000) / (seeds - 1)
        square = ours * t_seeds**2 + drawn * t_documents**2
        largest = np.maximum(ours, drawn)
        v = ours + drawn - residual * (residual / largest) ** 3
        half = square * np.maximum(v / (ours + drawn), 0.5)
    error, half = (np.sqrt(x / (seeds * n)) for x in (error, half))
    found = scipy.stats.norm.sf((half - difference) / error)
    assert np.mean(found) == pytest.approx(power, abs=0.006)


@pytest.mark.parametrize("df", [1, 2, 23])
def test_quantiles_of_mean_squares_are_those_of_chi_square(df):
    shares = (np.arange(128) + 0.5) / 128
    expected = scipy.stats.chi2.ppf(shares, df) / df
    assert crossed_module._chi_square_quantiles(df) == pytest.approx(expected)


def test_more_seeds_or_documents_find_smaller_differences():
    crossed = Crossed.of(drawn(3, 24, np.random.default_rng(5)))
    by_seeds = [crossed.detectable(0.99, seeds=seeds) for seeds in (3, 5, 8)]
    by_documents = [crossed.detectable(0.99, documents=n) for n in (24, 48, 96)]
    assert by_seeds == sorted(by_seeds, reverse=True)
    assert by_documents == sorted(by_documents, reverse=True)
    assert by_seeds[0] == by_documents[0] == crossed.detectable(0.99)
    assert crossed.detectable(0.99) == crossed.detectable(0.99, 0.8)
    assert Crossed.of([[0.1, 0.2, 0.4], [0.2, 0.1, 0.6]]).detectable(0.9, seeds=3) > 0
    assert Crossed.of([[0.1, 0.2], [0.2, 0.1], [0.3, 0.1]]).detectable(0.9) > 0
    assert math.isnan(Crossed.of([[0.1, 0.2, 0.4]]).detectable(0.99, seeds=3))


@pytest.mark.parametrize(("k", "n"), [(0, 7), (1, 9), (3, 10), (20, 20), (180, 200)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_exact_bounds_of_a_proportion_agree_with_statsmodels(k, n, level):
    expected = proportion_confint(k, n, 1 - level, method="beta")
    assert clopper_pearson(k, n, level) == pytest.approx(expected)


def test_a_proportion_of_nothing_may_be_anything():
    assert clopper_pearson(3, 10) == clopper_pearson(3, 10, 0.95)
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("seeds", "n"), [(1, 8), (2, 8), (3, 8), (5, 2), (4, 1), (3, 0)]
)
def test_what_is_shown_is_what_p_says(seeds, n):
    """Of tables that show much and little, equal values and empty ones included."""
    rng = np.random.default_rng(7)
    tables = rng.normal(rng.normal(0, 0.5, (40, 1, 1)), 1.0, (40, seeds, n))
    tables[:6] = np.array([0.3, 0.2999, 0.3001, 0, 1, -1])[:, None, None]
    for crossed in (
        Crossed.batch(tables),
        Crossed.of(tables[0]),
        Crossed.of(tables[9]),
    ):
        for p in (1e-6, 0.01, 0.3, 0.5, 0.7, 0.999):
            above, below = crossed.shows_above(p, 0.3), crossed.shows_below(p, 0.3)
            assert np.array_equal(above, np.asarray(crossed.p_above(0.3)) <= p)
            assert np.array_equal(below, np.asarray(crossed.p_below(0.3)) <= p)
        assert np.array_equal(crossed.shows_above(0.2), crossed.shows_above(0.2, 0.0))
        assert np.array_equal(crossed.shows_below(0.2), crossed.shows_below(0.2, 0.0))
