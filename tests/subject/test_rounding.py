"""Choosing among losses that rounding has touched, held against exact ones."""

import numpy as np
import pytest

from harness.subject.rounding import MARGIN_NATS, rounding_margin, together, top


@pytest.mark.parametrize("k", [1, 4, 30, 40])
def test_what_rounding_moves_is_chosen_as_if_it_had_not(k):
    rng = np.random.default_rng(0)
    exact = rng.normal(size=30)
    # Two steps of rounding: each referee sees less of it than the one before.
    coarse, fine = (exact + rng.uniform(-m, m, 30) / 2 for m in (0.5, 0.05))
    asked = []

    def referee(losses):
        def score(indices):
            asked.append(len(indices))
            return (yield losses.__getitem__, indices)

        return score

    [found] = together([top(coarse, k, [(0.5, referee(fine)), (0.05, referee(exact))])])

    assert found == np.argsort(-exact)[:k].tolist()
    assert asked == sorted(asked, reverse=True)


def test_who_asks_the_same_scorer_gets_the_losses_by_one_call():
    calls = []

    def double(numbers):
        calls.append(numbers)
        return 2.0 * np.array(numbers)

    def square(numbers):
        calls.append(numbers)
        return np.array(numbers) ** 2.0

    def asking(*questions):
        told = []
        for question in questions:
            told.append((yield question).tolist())
        return told

    found = together(
        [
            asking((double, [1, 2]), (double, [3])),
            asking(),
            asking((square, [5])),
            asking((double, [7]), (square, [8])),
        ]
    )

    assert found == [[[2, 4], [6]], [], [[25]], [[14], [64]]]
    assert calls == [[1, 2, 7], [5], [3], [8]]


def test_the_margin_falls_with_the_root_of_the_tokens_and_no_lower_than_the_batchs():
    sixteen, one = (rounding_margin("bfloat16", n) for n in (16, 1))

    assert one == pytest.approx(4 * sixteen)
    assert rounding_margin("tensorfloat32", 10**6) == MARGIN_NATS
    assert rounding_margin("float32", 1) == rounding_margin("float32", 999)
