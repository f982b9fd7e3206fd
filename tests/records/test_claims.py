"""Claims: what a suite states, and whether it was stated in time."""

import math

import pytest

from harness.records import StatedClaim, claims_changes
from harness.records.claims import Bound


@pytest.mark.parametrize(
    ("stated", "bound"),
    [
        ("<= 10 %", Bound(-math.inf, 0.1)),
        ("<=10%", Bound(-math.inf, 0.1)),
        ("> -.5", Bound(-0.5, math.inf)),
        ("< 0", Bound(-math.inf, 0.0)),
        (">= -0.03", Bound(-0.03, math.inf)),
        ("within 0.03", Bound(-0.03, 0.03)),
        ("reduced by 50 %", Bound(0.5, math.inf)),
    ],
)
def test_a_bound_is_read_as_a_suite_states_it(stated, bound):
    assert Bound.of(stated) == bound


def claim(bound="< 0", **told):
    about = {"arm": "a", "against": "b", "attack": "x", "measure": "dL"}
    return StatedClaim(**about, bound=bound, **told)


def test_a_claim_is_said_in_words():
    assert str(claim()) == "dL of x, a against b: < 0"
    assert str(claim(every_seed=True)) == "dL of x, a against b: < 0 under every seed"


STATED = {"g": {"c": claim()}, "h": {"d": claim("> 1")}}
OTHER = {"g": {"c": claim("< 1")}, "h": {"d": claim("> 1")}}


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ([], {}),
        ([STATED, STATED], {}),
        (
            [STATED, OTHER, OTHER],
            {"g": (2, "g.c was dL of x, a against b: < 1")},
        ),
        ([{}], {"g": (1, "g.c is new"), "h": (1, "h.d is new")}),
        (
            [STATED | {"g": {**STATED["g"], "e": claim()}}],
            {"g": (1, "g.e is no longer stated")},
        ),
        (
            [STATED | {"i": {"e": claim()}}],
            {"i": (1, "i.e is no longer stated")},
        ),
    ],
)
def test_claims_that_came_after_results_are_told_by_group(claims, told):
    changes = claims_changes(STATED, claims)
    assert {x: (y.records, y.details) for x, y in changes.items()} == told
    assert all(str(y).startswith("claims changed after ") for y in changes.values())


def test_another_threshold_is_another_claim():
    first, second = (claim(threshold=x) for x in (0.15, 0.5))
    assert claims_changes({"g": {"c": first}}, [{"g": {"c": second}}])
