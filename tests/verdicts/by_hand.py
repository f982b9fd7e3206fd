"""Numbers of records by hand: an estimate of two arms, and the rows it is made of."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import scipy.stats

from harness.records import Estimate
from harness.verdicts.results import Sums

X = ("m", "x")
"""The metric and the estimate that all records have."""


def number(value, **told):
    """Return an estimate; with an `error`, the 95 % interval of that standard error."""
    if "error" in told:
        half = scipy.stats.norm.ppf(0.975) * told.pop("error")
        told["interval"] = (value - half, value + half)
    usual = {"value": value, "n": 40, "unit": "points", "method": "by hand"}
    return Estimate(**(usual | told))


def arms(pairs, sums=None):
    """Return two arms that have these estimates of m.x, seed by seed, and these rows.

    `sums` are (numerators, denominators) or (numerators, denominators, units) of each
    arm, seed by seed; None where a metric does not tell them.
    """
    rows = {}
    results = SimpleNamespace(terms=lambda record: rows.get(record.id, {}))
    sides = [SimpleNamespace(results=results, variants={}) for _ in range(2)]
    for seed, pair in enumerate(pairs):
        for at, estimate in enumerate(pair):
            known = {} if estimate is None else {X[0]: {X[1]: estimate}}
            record = SimpleNamespace(id=(seed, at), results=known)
            sides[at].variants[seed] = record
            if sums is not None and sums[seed][at] is not None:
                rows[record.id] = {X: _terms(*sums[seed][at])}
    return sides


def _terms(numerators, denominators, units=None):
    names = units or [f"d{i}" for i in range(len(numerators))]
    return Sums(tuple(names), np.array(numerators), np.array(denominators))


def by_seed(*apart, error=None, **told):
    """Return estimates that are so far apart under each seed, without any rows."""
    if error is not None:
        told["error"] = error / np.sqrt(2)
    return [(number(5 + x, **told), number(5.0, **told)) for x in apart], None


def by_row(table, **told):
    """Return estimates and rows of arms that differ by a table [seeds, units]."""
    pairs = [(number(5 + x.mean(), **told), number(5.0, **told)) for x in table]
    ones = np.ones(len(table[0]))
    return pairs, [((5 + x, ones), (5 * ones, ones)) for x in table]
