import numpy as np
import pytest

from harness.search.flips import Flip
from harness.search.local import Effects, bigrams_of


def test_effects_of_positions_and_tokens_are_told_apart():
    """Of a complete table, they are its row and column means, drawn to zero."""
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(size=5), rng.normal(size=40)
    table = rows[:, None] + columns
    effects = Effects()
    for i in range(5):
        for token in range(40):
            effects.add(Flip(i, 100 + token), table[i, token])

    of_position, of_token = effects.fit(6)

    expected = (rows - rows.mean()) * 40 / 41
    assert of_position == pytest.approx([*expected, 0], abs=1e-9)
    found = [of_token[100 + token] for token in range(40)]
    remaining = table - table.mean() - expected[:, None]
    assert found == pytest.approx(remaining.sum(axis=0) / 6, abs=1e-9)


def test_without_tries_nothing_has_an_effect():
    of_position, of_token = Effects().fit(3)

    assert of_position.tolist() == [0, 0, 0]
    assert of_token == {}


def test_bigrams_are_the_allowed_tokens_that_follow():
    texts = [np.array([5, 6, 7, 5, 6]), np.array([6, 5, 8])]

    assert bigrams_of(texts, np.array([5, 6, 7])) == {5: [6, 6], 6: [7, 5], 7: [5]}
