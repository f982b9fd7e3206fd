"""What a design can see, and what would decide."""

import pytest

from harness.records.crossed import Crossed
from harness.records.margin import Margin
from harness.verdicts.case import Cases
from harness.verdicts.design import (
    SEEDS,
    TIMES,
    cheapest,
    detectable,
    margin_nats,
    needed,
)
from tests.verdicts.simulated import flawless


def contrast(scale, noise=0.4, **changes):
    (found,) = Cases(flawless(scale, noise=noise, **changes)).family
    return found


def table(found):
    return found.tables[..., -1]


def test_a_margin_is_of_the_reference_arms_worst_case():
    found = contrast(0.9)
    assert margin_nats(found) == pytest.approx(
        0.1 * found.reference_harm[..., -1].mean()
    )
    assert margin_nats(contrast(0.9, margin=Margin(nats=0.05))) == 0.05


def test_designs_are_thought_of_with_doubled_documents_and_with_more_and_more_seeds():
    assert list(TIMES) == [2**i for i in range(5)]
    assert sorted(set(SEEDS)) == list(SEEDS)


@pytest.mark.parametrize("contrasts", [1, 6])
def test_the_smallest_difference_is_that_of_holms_first_step(contrasts):
    found = contrast(0.9)
    expected = Crossed.of(table(found)).detectable(1 - 0.01 / contrasts, 0.8)
    assert detectable(found, contrasts) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scale", "level"), [(0.8, 0.99), (1.2, 0.99), (0.97, 0.975), (1.03, 0.975)]
)
def test_what_would_decide_is_the_cheapest_design_that_finds_it(scale, level):
    found = contrast(scale)
    crossed = Crossed.of(table(found))
    off, margin = abs(crossed.mean), margin_nats(found)
    directed = off >= margin
    assert directed == (level == 0.99)
    goal = off if directed else margin - off
    fitting = [
        (seeds * times * 24, seeds, times * 24)
        for seeds in {*SEEDS, 5}
        for times in TIMES
        if seeds >= 5 and crossed.detectable(level, 0.8, seeds, times * 24) <= goal
    ]
    design = needed(found, 1)
    assert design.seeds * design.documents == min(fitting)[0]
    assert (design.seeds * design.documents, design.seeds, design.documents) in fitting


@pytest.mark.parametrize("contrasts", [1, 6])
def test_seeds_are_added_before_documents_where_that_costs_less(contrasts):
    """Among all designs, the first cheapest, for differences that each just finds."""
    found = contrast(0.9, seeds=3, margin=Margin(nats=0.0))
    crossed = Crossed.of(table(found))
    finds = {
        (seeds, times * 24): crossed.detectable(
            1 - 0.01 / contrasts, 0.8, seeds, times * 24
        )
        for seeds in (3, 4, 5, 6, 8, 10, 15, 20)
        for times in (1, 2, 4, 8, 16)
    }
    for smallest in [*finds.values()][::3]:
        off = smallest + 1e-6
        found.shown = Crossed.batch((table(found) - crossed.mean + off)[None])
        design = needed(found, contrasts)
        fitting = [x for x, finding in finds.items() if finding <= off]
        first = min(fitting, key=lambda x: (x[0] * x[1], x[0]))
        assert (design.seeds, design.documents) == first


def test_of_many_runs_the_first_is_decided_about():
    small, large = (table(contrast(0.9, noise=noise)) for noise in (0.2, 0.8))
    own = [cheapest(Crossed.of(rows), 0.1, 0.99) for rows in (small, large)]
    assert own[0] != own[1]
    assert cheapest(Crossed.batch([small, large]), 0.1, 0.99) == own[0]


def test_where_no_design_would_decide_there_is_none():
    found = contrast(1.0)
    centred = table(found) - table(found).mean()
    found.shown = Crossed.batch((centred + margin_nats(found) - 1e-6)[None])
    assert needed(found, 1) is None


def test_of_two_seeds_no_treatment_is_decided_without_more():
    found = contrast(0.5, seeds=2, noise=0.01)
    assert needed(found, 1).seeds == 3


def test_of_a_single_seed_nothing_is_known_of_others():
    found = contrast(0.9, seeds=1)
    assert needed(found, 1) is None
    assert detectable(found, 1) > 0  # of these weights, that is


@pytest.mark.parametrize(("n", "documents"), [(12, 20), (19, 20), (24, 24)])
def test_no_fewer_documents_are_proposed_than_verdicts_ask_for(n, documents):
    assert needed(contrast(0.5, noise=0.001, n=n), 1).documents == documents
