"""Rounding: by what is uncertain, and only when shown."""

import pytest

from harness.report.content import Number
from harness.report.formats.text import cell_text


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (Number(10.8617, "perplexity", std=0.4129, n=5, planned=5), "10.9 ± 0.4"),
        (Number(0.17768, "fraction", std=0.0213, n=5, planned=5), "17.8 ± 2.1 %"),
        (Number(0.0681, "fraction", signed=True), "+6.8 %"),
        (Number(-0.00001, "fraction", signed=True), "+0.0 %"),
        (Number(2.34567, "nats", std=0.0098, n=2, planned=2), "2.35 ± 0.01"),
        (Number(2.34567, "nats", std=0.00031, n=2, planned=2), "2.3457 ± 0.0003"),
        (Number(2.34567, "nats", std=0.0, n=2, planned=2), "2.346 ± 0.000"),
        (Number(0.5, "nats", interval=(0.412, 0.587)), "0.50 [0.41, 0.59]"),
        (
            Number(-0.5, "nats", signed=True, interval=(-0.6, 0.1)),
            "-0.50 [-0.60, +0.10]",
        ),
        (Number(0.75, "fraction", interval=(0.598, 0.858)), "75.0 [59.8, 85.8] %"),
        (Number(12.0, "perplexity", n=1, planned=5), "12.00 (n=1 of 5)"),
        (Number(1_414_647_808, "parameters"), "1.4B"),
        (Number(14_067_712, "parameters"), "14M"),
        (Number(3_000_000, "count"), "3,000,000"),
        (Number(1.02e12, "flops"), "1.02e12"),
        (Number(4.2146e9, "flops"), "4.21e9"),
        (Number(19_068.53, "perplexity"), "19,069"),
        (Number(679.7, "perplexity", interval=(243.6, 1293.9)), "680 [244, 1,294]"),
        (Number(5e8, "perplexity", interval=(9e5, 7e12)), "5.00e8 [900,000, 7.00e12]"),
        (Number(180.49, "fraction", signed=True), "+18,049 %"),
        (Number(0.0004, "p"), "<0.001"),
        (Number(0.078, "p", mark="†"), "0.078†"),
        (Number(0.000001, "weight"), "1e-06"),
    ],
)
def test_numbers_are_shown_as_sure_as_they_are(number, shown):
    assert cell_text(number) == shown
