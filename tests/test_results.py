"""Estimates of attacks: every example counts, errors too."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from statsmodels.stats.proportion import proportion_confint

from harness.errors import RecordError
from harness.results import read_samples, successes, summarise_attack
from tests.run_fixtures import sample_row

DELTAS = [0.0, 0.1, 0.139, 0.14, 0.5, 1.0]


def _rows(errors: int = 0):
    attacked = [sample_row(i, 2.0 + i, delta) for i, delta in enumerate(DELTAS)]
    return attacked + [sample_row(50 + i, 9.0, 0.0, error=True) for i in range(errors)]


@pytest.mark.parametrize(("threshold", "hits"), [(0.15, 3), (0.05, 5), (1.0, 1)])
def test_success_means_that_perplexity_rises_by_more_than_the_threshold(
    threshold: float, hits: int
) -> None:
    assert sum(math.exp(delta) > 1 + threshold for delta in DELTAS) == hits
    assert sum(successes(_rows(), threshold)) == hits


def test_errors_stay_in_every_denominator() -> None:
    found = summarise_attack(_rows(errors=4), 0.15)
    assert found["success"].value == 3 / 10
    assert found["success"].interval == pytest.approx(
        proportion_confint(3, 10, method="wilson")
    )
    assert found["delta_loss"].value == pytest.approx(sum(DELTAS) / 10)
    assert found["delta_loss"].n == found["reachable"].n == 10
    assert found["errors"].value == 4


def test_losses_and_their_difference_agree() -> None:
    found = summarise_attack(_rows(), 0.15)
    clean = sum(2.0 + i for i in range(6)) / 6
    assert found["clean_loss"].value == pytest.approx(clean)
    after, delta = found["adversarial_loss"].value, found["delta_loss"].value
    assert after - clean == pytest.approx(delta)
    assert found["delta_loss_median"].value == pytest.approx((0.139 + 0.14) / 2)


def test_success_in_text_needs_a_reachable_prompt() -> None:
    found = summarise_attack(_rows(), 0.15)
    reachable = [i % 4 > 0 for i in range(6)]  # as the rows were made
    both = [
        ok and delta > math.log(1.15)
        for ok, delta in zip(reachable, DELTAS, strict=True)
    ]
    assert found["reachable"].value == sum(reachable) / 6
    assert found["text_success"].value == sum(both) / 6


def test_an_error_before_the_clean_loss_is_known_is_left_out_of_losses_alone() -> None:
    unknown = sample_row(7, 0.0, 0.0, error=True).model_copy(
        update={"clean_loss": None}
    )
    found = summarise_attack([*_rows(), unknown], 0.15)
    assert found["clean_loss"].n == 6
    assert found["success"].n == 7


def test_no_rows_give_nulls_with_reasons() -> None:
    for name, estimate in summarise_attack([], 0.15).items():
        if name not in ("threshold", "errors"):
            assert estimate.value is None
            assert estimate.reason


def test_a_bad_line_is_told_with_its_number(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    good = sample_row(1, 2.0, 0.5).model_dump(mode="json")
    bad = {**good, "clean_loss": "low"}
    file.write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n")
    with pytest.raises(RecordError, match=r"samples\.jsonl:2: clean_loss: "):
        read_samples(file)


def test_rows_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    rows = _rows(errors=2)
    file.write_text("".join(f"{row.model_dump_json()}\n" for row in rows))
    assert read_samples(file) == rows
