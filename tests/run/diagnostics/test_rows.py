"""Questions to a cell's rows: what a curve has to look like for them to fire."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from harness.records.samples import Checkpoint
from harness.records.statistics import paired_p
from harness.running.diagnostics.rows import examine_rows
from tests.run_fixtures import sample_row

SHARES = (0.25, 0.5, 1.0, 2.0)


def rows_of(curves, shares=SHARES):
    """Return rows whose dL at each share of the budget are the rows of `curves`."""
    made = []
    for index, curve in enumerate(curves):
        row = sample_row(index, 2.0, float(curve[-1]))
        kept = [
            Checkpoint(
                share=share,
                adversarial_prompt_ids=[1],
                adversarial_loss=2.0 + float(dl),
                delta_loss=float(dl),
            )
            for share, dl in zip(shares, curve[:-1], strict=False)
        ]
        changes = {"checkpoints": kept, "share": shares[len(curve) - 1]}
        made.append(row.model_copy(update=changes))
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
    assert gain.measured == {"shares": [0.25, 2.0]}
    curve = found["budget_curve"]
    assert curve.status == "pass"
    assert curve.measured["shares"] == list(SHARES)
    assert curve.measured["mean_dL"] == pytest.approx(curves.mean(axis=0))
    assert curve.value == pytest.approx(np.diff(curves.mean(axis=0)).min())


def test_a_drop_fires_and_says_where(noise):
    found = answers(rows_of(np.array([0.2, 0.6, 0.4, 0.7]) + noise))["budget_curve"]
    assert found.status == "fail"
    assert "1 times the budget does less harm than 0.5" in found.reason


def test_a_drop_within_the_noise_does_not_fire():
    noise = np.random.default_rng(1).normal(scale=0.5, size=(20, 4))
    found = answers(rows_of(np.array([0.2, 0.21, 0.2, 0.22]) + noise))["budget_curve"]
    assert found.value < 0
    assert found.status == "pass"


def test_a_budget_that_brings_nothing_fires():
    curves = np.arange(1, 13)[:, None] / 8 * np.ones(3)
    found = answers(rows_of(curves))
    assert found["iterative_beats_one_step"].status == "fail"
    assert "no more harm than 0.25" in found["iterative_beats_one_step"].reason
    assert found["budget_curve"].status == "pass"  # a plateau is no drop


def test_a_gain_that_could_be_chance_is_a_warning():
    curves = np.random.default_rng(3).normal(scale=0.5, size=(12, 2))
    curves += 0.05 - (curves[:, 1] - curves[:, 0]).mean() * np.array([0, 1])
    found = answers(rows_of(curves + np.array([0, 0.05])))["iterative_beats_one_step"]
    assert found.interval[0] < 0 < found.value
    assert found.status == "warn"


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (rows_of(np.ones((3, 1)) * [[1], [2], [3]]), "no prompts of smaller budgets"),
        ([sample_row(0, 2.0, 0.0, error=True)], "every example ended in an error"),
        (rows_of([[1, 2], [1, 2, 3]]), "different budgets"),
    ],
)
def test_what_cannot_be_asked_is_not_passed(rows, reason):
    for found in examine_rows(rows):
        assert found.status == "not_applicable"
        assert reason in found.reason


def test_rows_in_error_are_left_out_and_counted_elsewhere():
    rows = [*rows_of([[0.1, 0.3], [0.2, 0.6]]), sample_row(2, 2.0, 0.0, error=True)]
    found = answers(rows)["iterative_beats_one_step"]
    assert (found.value, found.n) == (pytest.approx(0.3), 2)


def test_the_p_value_is_student_s_over_documents():
    values = np.array([0.1, 0.3, -0.1, 0.2, 0.5, 0.0])
    by_document = [0.2, 0.05, 0.25]
    expected = ttest_1samp(by_document, 0, alternative="greater").pvalue
    assert paired_p(values, ["a", "a", "b", "b", "c", "c"]) == pytest.approx(expected)
    assert paired_p([0.3], ["a"]) == 1.0
    assert (paired_p([0.3, 0.3], "ab"), paired_p([0.0, 0.0], "ab")) == (0.0, 1.0)
