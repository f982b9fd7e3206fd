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
    # Two steps of rounding: each referee sees less of it than the one before.
    coarse, fine = (exact + rng.uniform(-m, m, 30) / 2 for m in (0.5, 0.05))
    losses, asked = {Ask.FINER_LOSSES: fine, Ask.EXACT_LOSSES: exact}, []

    class Subject:
        lanes = Lanes()

        def launched(self, ask, pairs):
            asked.append(len(pairs))
            return lambda: losses[ask][[prompt for prompt, _ in pairs]]

    pairs = [(i, "reference") for i in range(30)]
    referees = [(0.5, Ask.FINER_LOSSES), (0.05, Ask.EXACT_LOSSES)]
    search = choice(pairs, coarse, k, lambda tokens: referees, lowest=lowest)
    found = alone(Subject(), search)

    assert found == np.argsort(exact if lowest else -exact)[:k].tolist()
    assert asked == sorted(asked, reverse=True)


def test_the_margin_falls_with_the_root_of_the_tokens_and_no_lower_than_the_batchs():
    sixteen, one = (rounding_margin("bfloat16", n) for n in (16, 1))

    assert one == pytest.approx(4 * sixteen)
    assert rounding_margin("tensorfloat32", 10**6) == MARGIN_NATS
    assert rounding_margin("float32", 1) == rounding_margin("float32", 999)
