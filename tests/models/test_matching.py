"""Weights and factors that give a stated loss."""

import pytest

from harness.models import bisect


@pytest.mark.parametrize("target", [0.1, 0.7, 1.0])
def test_bisection_finds_where_a_rising_value_is_the_target(target):
    found = bisect(lambda x: x**3, target, 1e-9, high=1.0, steps=60)
    assert found == pytest.approx(target ** (1 / 3), rel=1e-6)


def test_a_value_that_is_not_reached_gives_the_nearest_place():
    assert bisect(lambda x: x, 3.0, 0.1, high=2.0, steps=5) == 2.0
    assert bisect(lambda x: 1 + x, 0.5, 0.1, high=1.0, steps=5) == 1 / 32
