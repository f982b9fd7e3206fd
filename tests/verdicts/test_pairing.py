"""Rows that ended in an error are in no mean of dL, and do no less harm than others."""

from statistics import fmean

import numpy as np
import pytest

from harness.records.crossed import Crossed
from harness.verdicts.pairing import (
    Attacked,
    by_unit,
    crossed_mean,
    mean_over,
    pair,
    same_examples,
    worst_rows,
)
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


def test_of_equal_rows_the_first_attacks_is_the_worst():
    first, second = _cell(0.1, 0.4).rows, _cell(0.1, 0.2).rows
    assert worst_rows([second, first]) == [second[0], first[1]]
    assert worst_rows([second[::-1], first]) == [first[1], second[0]]


def test_errors_are_counted():
    assert [_cell(0.1, None, None).errors, _cell(0.1).errors] == [2, 0]


def test_cells_about_different_examples_do_not_pair_and_have_no_mean():
    short, long = {1: _cell(0.1, 0.2)}, {1: _cell(0.1, 0.2, 0.3)}
    assert pair(short, long) is None
    assert pair(long, short) is None
    assert mean_over(short | {2: long[1]}) is mean_over({}) is None
    assert same_examples([])
    assert same_examples([short[1], _cell(0.3, 0.4)])
    assert not same_examples([short[1], long[1]])
    assert pair(short, {2: short[1]}) is None
    assert pair(short, {2: long[1]} | short).mean_deltas() == pytest.approx([0.15] * 2)


def test_a_pairing_says_what_its_table_of_differences_does():
    second = {seed: _cell(*np.sin(np.arange(4) + seed)) for seed in FIRST}
    first = {seed: _cell(*np.cos(np.arange(4) * seed)) for seed in FIRST}
    own, others = (
        np.array([[row.delta_loss for row in cell.rows] for cell in side.values()])
        for side in (first, second)
    )
    found = pair(first, second)
    assert found.p_above() == Crossed.of(own - others).p_above()
    assert found.difference().interval == Crossed.of(own - others).interval()
    below = mean_over(first, lambda row: -row.delta_loss)
    assert below.value == pytest.approx(-own.mean())


def test_examples_of_a_unit_are_averaged_under_each_seed():
    """A unit that a seed lacks is left out."""
    seeds, units = [7, 7, 7, 7, 5, 5, 5, 7, 5], list("abacbadba")
    values = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]
    table = by_unit(values, units, seeds)
    assert table.tolist() == [[2.5, 65.0], [144.0, 16.0]]
    assert by_unit([], [], []).shape == (0, 0)


@pytest.mark.parametrize(
    ("seeds", "method"),
    [
        (2, "mean; studentized bootstrap over documents"),
        (3, "mean; two-way random effects over documents and seeds"),
    ],
)
@pytest.mark.parametrize("n", [0, 1, 12])
def test_a_mean_says_how_it_was_made_and_why_it_has_no_interval(seeds, method, n):
    table = np.random.default_rng(2).normal(size=(seeds, n))
    found = crossed_mean(table, "nats")
    assert (found.n, found.unit, found.method) == (n, "nats", method)
    reasons = {0: "no values", 1: "no interval from one document"}
    assert found.reason == reasons.get(n)
    assert found.value == (pytest.approx(table.mean()) if n else None)
    assert found.interval == (Crossed.of(table).interval() if n > 1 else None)
