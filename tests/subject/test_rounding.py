"""Choosing among losses that rounding has touched, held against exact ones."""

import numpy as np
import pytest

from harness.subject.rounding import MARGIN_NATS, choice, rounding_margin
from harness.subject.scheduler import Ask, Lanes, alone


@pytest.mark.parametrize("lowest", [False, True])
@pytest.mark.parametrize("k", [1, 4, 30, 40])
def test_what_rounding_moves_is_chosen_as_if_it_had_not(k, lowest):
    rng = np.random.default_rng(0)
    exact = rng.normal(size=30)
    coarse, asked = exact + rng.uniform(-0.5, 0.5, 30) / 2, []

    class Subject:
        lanes = Lanes()

        def launched(self, ask, pairs):
            asked.append((ask, len(pairs)))
            return lambda: exact[[prompt for prompt, _ in pairs]]

    pairs = [(np.int64(i), np.arange(9)) for i in range(30)]
    search = choice(pairs, coarse, k, lambda tokens: 0.5, lowest=lowest)
    found = alone(Subject(), search)

    assert found == np.argsort(exact if lowest else -exact)[:k].tolist()
    best_first = np.sort(coarse)[:: 1 if lowest else -1]
    near = abs(best_first - best_first[:k][-1]) <= 0.5
    near[:k] = True
    needed = near.sum() > 1 and abs(np.diff(best_first[near])).min() <= 0.5
    assert asked == [(Ask.DECIDING_LOSSES, near.sum())] * int(needed)


def test_the_margin_falls_with_the_root_of_the_tokens_and_no_lower_than_the_batchs():
    sixteen, one = (rounding_margin("bfloat16", n) for n in (16, 1))

    assert one == pytest.approx(4 * sixteen)
    assert rounding_margin("bfloat16", 10**6) == MARGIN_NATS
    assert rounding_margin("bfloat16", 16, steady=True) == pytest.approx(0.005)
    assert rounding_margin("bfloat16", 16, steady=True) < sixteen
    assert rounding_margin("float32", 1) == rounding_margin("float32", 999)
