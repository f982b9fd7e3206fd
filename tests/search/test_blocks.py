import numpy as np
import pytest
from scipy.stats import spearmanr

from harness.search.blocks import agreement, draw_from_lists
from harness.search.flips import Flip


def test_agreement_is_spearmans_correlation_mapped_to_one_and_zero():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 30))
    for a, b in ((one, other), (one, one**3), (one, -one)):
        expected = (1 + spearmanr(a, b).statistic) / 2
        assert agreement(a, b) == pytest.approx(expected, abs=1e-12)


def test_draws_are_uniform_over_positions_and_then_over_their_lists():
    lists = {2: [7], 5: [1, 2, 3, 4], 6: []}
    rng = np.random.default_rng(0)

    drawn = [flip for _ in range(4000) for flip in draw_from_lists(lists, rng, 1)]

    assert set(drawn) == {Flip(2, 7), *(Flip(5, token) for token in (1, 2, 3, 4))}
    share = np.mean([flip == Flip(2, 7) for flip in drawn])
    assert share == pytest.approx(1 / 2, abs=0.03)  # 4 standard deviations
    share = np.mean([flip == Flip(5, 1) for flip in drawn])
    assert share == pytest.approx(1 / 8, abs=0.02)


def test_draws_are_distinct_and_where_there_are_few_all_are_drawn():
    lists = {0: range(5), 3: range(4)}
    rng = np.random.default_rng(0)

    assert len(set(draw_from_lists(lists, rng, 8))) == 8
    assert len(set(draw_from_lists(lists, rng, 20))) == 9
