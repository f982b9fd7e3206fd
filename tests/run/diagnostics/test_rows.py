"""Questions to a cell's rows: what a curve has to look like for them to fire."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from harness.records.statistics import paired_p
from harness.run.diagnostics.rows import examine_rows
from tests.run_fixtures import sample_row


def rows_of(curves, traces=None):
    """Return rows whose dL after each step are the rows of `curves` [n, steps]."""
    made = []
    for index, curve in enumerate(curves):
        row = sample_row(index, 2.0, float(curve[-1]))
        trace = [
            {"step": k + 1, "position": 0, "token": 1, "loss": 2.0 + float(dl)}
            for k, dl in enumerate(curve)
        ]
        made.append(row.model_copy(update={"trace": traces or trace}))
    return made


def answers(rows):
    return {each.id: each for each in examine_rows(rows)}


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(scale=0.05, size=(20, 4))


def test_rising_curves_pass(noise):
    curves = np.array([0.2, 0.4, 0.5, 0.6]) + noise
    found = answers(rows_of(curves))
    gain = found["iterative_beats_one_step"]
    assert gain.status == "pass"
    assert gain.value == pytest.approx((curves[:, 3] - curves[:, 0]).mean())
    curve = found["budget_curve"]
    assert curve.status == "pass"
    assert curve.measured["mean_dL"] == pytest.approx(curves.mean(axis=0))
    assert curve.value == pytest.approx(np.diff(curves.mean(axis=0)).min())


def test_a_drop_fires_and_says_where(noise):
    found = answers(rows_of(np.array([0.2, 0.6, 0.4, 0.7]) + noise))["budget_curve"]
    assert found.status == "fail"
    assert "3 steps do less harm than 2" in found.reason


def test_a_drop_within_the_noise_does_not_fire():
    noise = np.random.default_rng(1).normal(scale=0.5, size=(20, 4))
    found = answers(rows_of(np.array([0.2, 0.21, 0.2, 0.22]) + noise))["budget_curve"]
    assert found.value < 0
    assert found.status == "pass"


def test_steps_that_bring_nothing_fire():
    curves = np.linspace(0.1, 0.4, 12)[:, None] * np.ones(3)
    assert answers(rows_of(curves))["iterative_beats_one_step"].status == "fail"


def test_a_gain_that_could_be_chance_is_a_warning():
    curves = np.random.default_rng(3).normal(scale=0.5, size=(12, 2))
    curves += 0.05 - (curves[:, 1] - curves[:, 0]).mean() * np.array([0, 1])
    found = answers(rows_of(curves + np.array([0, 0.05])))["iterative_beats_one_step"]
    assert found.interval[0] < 0 < found.value
    assert found.status == "warn"


def test_long_curves_are_read_where_budgets_double():
    found = answers(rows_of(np.linspace(0, 1, 20)[None] * [[1], [2], [3]]))
    assert found["budget_curve"].measured["budgets"] == [1, 2, 4, 8, 16, 20]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (rows_of(np.zeros((3, 2)), traces=[{"source": "baseline"}]), "no sequence"),
        (
            rows_of(np.zeros((3, 2)), traces=[{"step": 1, "loss": 2.0}]),
            "of the search examples",
        ),
        ([sample_row(0, 2.0, 0.0, error=True)], None),
        (rows_of(np.ones((3, 1)) * [[1], [2], [3]]), "single"),
    ],
)
def test_what_cannot_be_asked_is_not_passed(rows, reason):
    for found in examine_rows(rows):
        assert found.status == "not_applicable"
        assert reason is None or reason in found.reason


def test_unchanged_rows_count_with_a_flat_curve():
    rows = rows_of(np.array([[0.4, 0.8], [0.2, 0.4]]))
    rows.append(sample_row(2, 2.0, 0.0).model_copy(update={"trace": []}))
    found = answers(rows)["iterative_beats_one_step"]
    assert (found.value, found.n) == (pytest.approx((0.4 + 0.2 + 0.0) / 3), 3)


def test_the_p_value_is_student_s_over_documents():
    values = np.array([0.1, 0.3, -0.1, 0.2, 0.5, 0.0])
    by_document = [0.2, 0.05, 0.25]
    expected = ttest_1samp(by_document, 0, alternative="greater").pvalue
    assert paired_p(values, ["a", "a", "b", "b", "c", "c"]) == pytest.approx(expected)
    assert paired_p([0.3], ["a"]) == 1.0
    assert (paired_p([0.3, 0.3], "ab"), paired_p([0.0, 0.0], "ab")) == (0.0, 1.0)
