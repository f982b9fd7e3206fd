"""The detection limit: the smallest planted weakness that is found, and all larger."""

import numpy as np
import pytest
import scipy.stats

from harness.verdicts.findings import Plant
from harness.verdicts.questions.planted import detections, limit, limits
from tests.verdicts.simulated import arm


def plant(kind, strength, found, n=32, units=None, does=1.0, **reached):
    """Return a plant that `flip` finds on so many of n documents.

    Its trigger `does` so much of its strength, on all of them or on each [n].
    """
    own = np.linspace(0.1, 0.9, n)
    short = np.where(np.arange(n) < found, 0.5, 0.499) * strength
    return Plant(
        kind,
        strength,
        units or [f"d{i}" for i in range(n)],
        own,
        own + does * strength,
        {"flip": own + short} | reached,
    )


def planted(*plants):
    rng = np.random.default_rng(0)
    return arm("treated", "baseline", 1.0, rng, plants=list(plants))


@pytest.mark.parametrize(("found", "expected"), [(28, None), (29, 1.0), (32, 1.0)])
def test_three_quarters_of_documents_have_to_be_shown(found, expected):
    both = [plant(kind, 1.0, found) for kind in ("token", "ffn")]
    assert limit(planted(*both)) == expected
    bound = scipy.stats.beta.ppf(0.05, found, 32 - found + 1)
    assert detections(planted(*both))[0].at_least == pytest.approx(bound)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({0.3: 32, 1.0: 32, 3.0: 32}, 0.3),
        ({0.3: 5, 1.0: 32, 3.0: 32}, 1.0),
        ({0.3: 32, 1.0: 5, 3.0: 32}, 3.0),  # luck: a larger one is not found
        ({0.3: 32, 1.0: 32, 3.0: 5}, None),
        ({3.0: 32, 0.3: 32}, 0.3),
    ],
)
def test_a_limit_is_where_all_larger_ones_are_found(found, expected):
    alike = [plant(kind, x, k) for kind in ("token", "ffn") for x, k in found.items()]
    assert limit(planted(*alike)) == expected
    assert limit(planted(*alike), "flip") == expected


def test_single_tokens_and_feed_forward_weights_decide_and_both_have_to_be_there():
    token, ffn = plant("token", 0.3, 32), plant("ffn", 1.0, 32)
    assert limit(planted(token, ffn)) == 1.0
    assert limit(planted(token)) is limit(planted(ffn)) is limit(planted()) is None
    pair = plant("pair", 3.0, 0)
    assert limit(planted(token, ffn, pair)) == 1.0
    assert limits(planted(token, ffn, pair)) == {"token": 0.3, "ffn": 1.0, "pair": None}


def test_of_equal_strengths_all_have_to_be_found_in_whatever_order():
    found, missed = ([plant(x, 1.0, k) for x in ("token", "ffn")] for k in (32, 0))
    assert limit(planted(*found, *found)) == 1.0
    assert limit(planted(*found, *missed)) is limit(planted(*missed, *found)) is None


def test_the_union_finds_what_any_attack_finds():
    first = plant("token", 1.0, 20)
    rest = np.where(np.arange(32) < 20, 0.0, 2.0) + first.own
    rest[0] = np.nan  # an error has found nothing
    found = planted(
        plant("token", 1.0, 20, query=rest), plant("ffn", 1.0, 32, query=rest)
    )
    assert limit(found) == 1.0
    assert limit(found, "flip") is limit(found, "query") is None
    assert limits(found) == {"token": 1.0, "ffn": 1.0}
    counts = {x.attack: (x.found, x.present) for x in detections(found)[:3]}
    assert counts == {None: (32, 32), "flip": (20, 32), "query": (12, 32)}


def test_a_document_is_one_where_all_of_its_examples_are_found():
    units = [f"d{i // 2}" for i in range(32)]
    found = detections(planted(plant("token", 1.0, 31, units=units)))[0]
    assert (found.found, found.present, found.documents) == (15, 16, 16)


@pytest.mark.parametrize("seed", range(4))
def test_a_document_counts_where_the_trigger_does_half_of_the_strength(seed):
    """By brute force: of each document's examples, those that have it count."""
    rng = np.random.default_rng(seed)
    units = [f"d{i}" for i in rng.integers(12, size=32)]
    does = rng.choice([-0.2, 0.25, 0.499, 0.5, 0.6, 1.7, np.nan], 32)
    made = plant("token", 2.0, 25, units=units, does=does)
    having = {}
    for i, unit in enumerate(units):
        if np.isnan(does[i]) or does[i] >= 0.5:  # what is not known may be there
            having.setdefault(unit, []).append(i < 25)
    expected = (sum(map(all, having.values())), len(having), len(set(units)))
    for found in detections(planted(made)):
        assert (found.found, found.present, found.documents) == expected
        bound = scipy.stats.beta.ppf(0.05, expected[0], 1 + expected[1] - expected[0])
        assert found.at_least == pytest.approx(bound)


@pytest.mark.parametrize(("having", "expected"), [(0, None), (10, None), (11, 1.0)])
def test_a_plant_on_too_few_documents_has_no_limit(having, expected):
    does = np.where(np.arange(32) < having, 0.5, 0.499)
    both = [plant(kind, 1.0, having, does=does) for kind in ("token", "ffn")]
    assert limit(planted(*both)) == expected
    assert detections(planted(*both))[0].found == having
