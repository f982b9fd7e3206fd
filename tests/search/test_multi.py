import numpy as np
import pytest

from harness.search.multi import draw_distinct


@pytest.mark.parametrize("seed", range(20))
def test_distinct_draws_are_numpy_s(seed):
    rng = np.random.default_rng(seed)
    chances = rng.random(30) ** 4 * (rng.random(30) < 0.7)
    chances /= chances.sum()
    count = int(rng.integers(1, np.count_nonzero(chances) + 1))
    ours, theirs = np.random.default_rng(seed), np.random.default_rng(seed)

    found = draw_distinct(ours, chances, count)

    expected = theirs.choice(30, count, replace=False, p=chances)
    assert found == expected.tolist()
    assert ours.random() == theirs.random()  # as much of the stream is used
