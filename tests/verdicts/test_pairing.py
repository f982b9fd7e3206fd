"""Rows that ended in an error are in no mean of dL, and do no less harm than others."""

from statistics import fmean

import pytest

from harness.verdicts.pairing import Attacked, mean_over, pair, worst_rows
from tests.run_fixtures import sample_row


def _cell(*deltas):
    """Return a cell with such dL, None for an error."""
    return Attacked(
        [sample_row(i, 2.0, x or 0.0, error=x is None) for i, x in enumerate(deltas)]
    )


FIRST = {1: _cell(0.1, None, 0.3, 0.4), 2: _cell(0.5, 0.6, 0.7, 0.8)}
SECOND = {1: _cell(0.2, 0.2, 0.2, 0.2), 2: _cell(0.1, 0.1, 0.1, None)}


def test_means_are_over_the_examples_without_an_error_under_any_seed():
    pairing = pair(FIRST, SECOND)
    kept = [0.1, 0.3, 0.5, 0.7], [0.2, 0.2, 0.1, 0.1]
    assert pairing.mean_deltas() == pytest.approx([fmean(side) for side in kept])
    difference = pairing.difference()
    assert difference.value == pytest.approx(fmean(kept[0]) - fmean(kept[1]))
    assert (difference.n, len(pairing.first)) == (2, 8)
    pooled = mean_over(FIRST)
    assert pooled.value == pytest.approx(fmean([0.1, 0.3, 0.4, 0.5, 0.7, 0.8]))


def test_pairs_that_all_have_an_error_are_none():
    assert pair({1: _cell(0.1, None)}, {1: _cell(None, 0.2)}) is None


def test_an_error_is_the_worst_row_only_where_nothing_else_is_there():
    rows = worst_rows([_cell(None, None, 0.1).rows, _cell(-0.2, None, 0.0).rows])
    assert [row.status for row in rows] == ["attacked", "error", "attacked"]
    assert [rows[0].delta_loss, rows[2].delta_loss] == pytest.approx([-0.2, 0.1])
