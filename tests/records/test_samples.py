"""Estimates of attacks: every example counts, errors too."""

import json
import math

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from harness.base import RecordError
from harness.records import SampleRow, read_samples, successes, summarise_attack
from tests.run_fixtures import sample_row

DELTAS = [0.0, 0.1, 0.139, 0.14, 0.5, 1.0]


def _row(*loss_and_rise, number=0, error=False, **changes):
    row = sample_row(number, *loss_and_rise, error=error)
    return row.model_copy(update=changes)


def _rows(errors=0):
    attacked = [_row(2.0 + i, delta, number=i) for i, delta in enumerate(DELTAS)]
    return attacked + [_row(9.0, 0.0, number=50 + i, error=True) for i in range(errors)]


def _answers(clean, adversarial, **more):
    right = {"answer_correct_clean": clean, "answer_correct_adversarial": adversarial}
    return _row(2.0, 0.1, **right, **more)


@pytest.mark.parametrize(("threshold", "hits"), [(0.15, 3), (0.05, 5), (1.0, 1)])
def test_success_means_that_perplexity_rises_by_more_than_the_threshold(
    threshold, hits
):
    assert sum(math.exp(delta) > 1 + threshold for delta in DELTAS) == hits
    assert sum(successes(_rows(), threshold)) == hits


def test_errors_stay_in_the_denominator_of_every_fraction():
    found = summarise_attack(_rows(errors=4), 0.15)
    assert found["success"].value == 3 / 10
    assert found["success"].interval == pytest.approx(
        proportion_confint(3, 10, method="wilson")
    )
    assert found["success"].n == found["reachable"].n == 10
    assert found["errors"].value == 4


def test_errors_have_no_dl_and_are_in_no_mean_of_it():
    found = summarise_attack(_rows(errors=4), 0.15)
    for name, expected in (
        ("delta_loss", np.mean(DELTAS)),
        ("delta_loss_median", np.median(DELTAS)),
        ("adversarial_loss", np.mean([2.0 + i + x for i, x in enumerate(DELTAS)])),
    ):
        assert found[name].value == pytest.approx(expected)
        assert found[name].n == 6
    alone = summarise_attack(_rows(errors=4)[6:], 0.15)
    assert alone["delta_loss"].value is alone["delta_loss_median"].value is None


def test_losses_and_their_difference_agree():
    found = summarise_attack(_rows(), 0.15)
    clean = sum(2.0 + i for i in range(6)) / 6
    assert found["clean_loss"].value == pytest.approx(clean)
    after, delta = found["adversarial_loss"].value, found["delta_loss"].value
    assert after - clean == pytest.approx(delta)
    assert found["delta_loss_median"].value == pytest.approx((0.139 + 0.14) / 2)


def test_success_in_text_needs_a_reachable_prompt():
    found = summarise_attack(_rows(), 0.15)
    reachable = [i % 4 > 0 for i in range(6)]  # as the rows were made
    harmful = [delta > math.log(1.15) for delta in DELTAS]
    assert found["reachable"].value == sum(reachable) / 6
    assert found["text_success"].value == np.logical_and(reachable, harmful).mean()


def test_an_error_before_the_clean_loss_is_known_is_left_out_of_losses_alone():
    unknown = _row(0.0, 0.0, error=True, clean_loss=None)
    found = summarise_attack([*_rows(), unknown], 0.15)
    assert found["clean_loss"].n == 6
    assert found["success"].n == 7


def test_no_rows_give_nulls_with_reasons():
    for name, estimate in summarise_attack([], 0.15).items():
        if name not in ("threshold", "errors"):
            assert estimate.value is None
            assert estimate.reason


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"clean_loss": 2.0', '"clean_loss": "low"', 'clean_loss: .*, not "low"'),
        ('"clean_loss": 2.0', '"clean_loss": true', "clean_loss: .*, not true"),
        ('"clean_loss": 2.0', '"clean_loss": NaN', "cannot be read: NaN is not JSON"),
        ('"trace": [{', '"trace": [{"x": 1e999, ', "beyond the range of floats"),
        ('"gold": null', '"gold": 1.0', "gold: .*, not 1.0"),
        ('"gold": null', '"gold": null, "gold": null', "'gold' occurs twice"),
        ('"gold": null', '"mood": null', "mood: is unknown"),
        ('"delta_loss": 0.5, ', "", "delta_loss: is missing"),
        ("}", "", "cannot be read"),
    ],
)
def test_a_bad_line_is_told_with_its_number(tmp_path, old, new, told):
    file = tmp_path / "samples.jsonl"
    good = json.dumps(sample_row(1, 2.0, 0.5).model_dump(mode="json"))
    assert old in good
    file.write_text(f"{good}\n{good.replace(old, new, 1)}\n")
    with pytest.raises(RecordError, match=rf"samples\.jsonl:2: .*{told}"):
        read_samples(file)


def test_rows_are_read_back_as_they_were_written(tmp_path):
    file = tmp_path / "samples.jsonl"
    rows = _rows(errors=2)
    file.write_text("".join(f"{row.model_dump_json()}\n" for row in rows))
    assert read_samples(file) == rows


def test_answers_are_counted_over_all_examples():
    outcomes = [(True, True), (True, False), (False, False), (False, True)]
    rows = [_answers(*each) for each in [*outcomes, *outcomes[1:3]]]
    found = summarise_attack([*rows, _answers(True, True, error=True)], 0.15)
    assert found["clean_accuracy"].value == 4 / 7
    assert found["attacked_accuracy"].value == 3 / 7
    assert found["answer_lost"].value == 2 / 7
    assert found["answer_lost"].interval == pytest.approx(
        proportion_confint(2, 7, method="wilson")
    )


def test_summaries_are_spoilt_by_a_relative_fall():
    scores = [(0.5, 0.44), (0.5, 0.46), (0.0, 0.0), (0.2, 0.0)]
    rows = [_row(2.0, 0.1, rouge_clean=a, rouge_adversarial=b) for a, b in scores]
    found = summarise_attack(rows, 0.15, 0.10)
    assert found["rouge_drop_success"].value == 2 / 4
    assert found["rouge_drop"].value == pytest.approx((0.06 + 0.04 + 0.2) / 4)
    assert found["rouge_clean"].value == pytest.approx(0.3)
    assert summarise_attack(rows, 0.15, 0.5)["rouge_drop_success"].value == 1 / 4
    assert found["rouge_threshold"].value == 0.10


def test_rows_without_answers_give_the_estimates_that_they_always_gave():
    old = sample_row(0, 2.0, 0.1).model_dump(mode="json")
    new = {"choices", "gold", "reference_text", "clean_summary", "adversarial_summary"}
    new |= {f"answer_correct_{x}" for x in ("clean", "adversarial")}
    new |= {f"rouge_{x}" for x in ("clean", "adversarial")}
    row = SampleRow.model_validate({k: v for k, v in old.items() if k not in new})
    names = set(summarise_attack([row], 0.15))
    assert not [name for name in names if "answer" in name or "rouge" in name]
