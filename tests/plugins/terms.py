"""What rows of a metric add up to."""

import math
from collections import defaultdict

import pytest


def assert_terms_make(metric, rows, found):
    """Hold the sums of a metric's terms against its estimates; return their names."""
    terms = defaultdict(list)
    for row in rows:
        for name, term in metric.terms(row).items():
            terms[name].append(term)
    for name, own in terms.items():
        ratio = sum(x.numerator for x in own) / sum(x.denominator for x in own)
        value = math.exp(ratio) if found[name].unit == "perplexity" else ratio
        assert value == pytest.approx(found[name].value), name
        assert len({x.unit for x in own}) == len(own)
    return {*terms}
