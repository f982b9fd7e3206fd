"""Times, rates and sizes read as a person writes them."""

import pytest

from harness.base.spelling import spell_rate, spell_seconds, spell_size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (119, "119 s"),
        (150, "2 min"),
        (3599, "60 min"),
        (3900, "1 h 05 min"),
    ],
)
def test_spans_are_spelled(seconds, words):
    assert spell_seconds(seconds) == words


def test_slow_rates_are_spelled_by_the_minute():
    assert spell_rate(1234.4, "tokens") == "1,234 tokens/s"
    assert spell_rate(0.05, "examples") == "3.0 examples/min"


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0.0 GiB"), (2**29, "0.5 GiB"), (80 * 2**30, "80.0 GiB")],
)
def test_sizes_are_spelled_in_gib(size, words):
    assert spell_size(size) == words
