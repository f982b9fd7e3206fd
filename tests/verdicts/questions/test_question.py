"""How a question is answered: by a claim at its level, by a fact, or not at all."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from harness.records.crossed import Crossed
from harness.verdicts.claims import (
    Claim,
    above,
    below,
    corrected,
    every,
    mean_of_known,
    of_run,
    some,
)
from harness.verdicts.questions.question import Question

TABLE = np.random.default_rng(3).normal(0.2, 0.3, (4, 30))


def claim(*p):
    found = np.array(p)
    about = Crossed.batch(TABLE[None])
    return Claim(lambda: found, lambda level: found <= level, about, 0.0, about.S)


@pytest.mark.parametrize(
    ("p", "level", "against_it", "expected"),
    [
        (0.01, 0.01, False, "pass"),
        (0.0101, 0.01, False, "fail"),
        (0.01, 0.01, True, "fail"),
        (0.0101, 0.01, True, "pass"),
        (0.025, 0.025, False, "pass"),
    ],
)
def test_a_claim_is_shown_at_its_level(p, level, against_it, expected):
    asked = Question("transfer", claim=claim(p), level=level, against_it=against_it)
    assert asked.status() == expected


def test_facts_and_absences_are_answers_too():
    assert Question("replay").status() == "pass"
    assert Question("replay", otherwise="stale").status() == "fail"
    asked = Question("replay", absence="not asked", claim=claim(0.5))
    assert asked.status() == "not_applicable"
    default = Question("transfer", claim=claim(0.01))
    assert default.status() == "pass"
    assert Question("transfer", claim=claim(0.0101)).status() == "fail"


def test_each_run_of_a_batch_has_its_own_answer_or_all_have_one():
    asked = Question("transfer", claim=claim(0.5, 0.001, 0.001))
    assert [asked.status(run) for run in (0, 1)] == ["fail", "pass"]
    assert asked.status() == "fail"
    assert Question("transfer", claim=claim(0.001)).status(7) == "pass"


def test_the_first_of_many_runs_is_read_where_none_is_named():
    assert of_run(np.array([3.0, 4.0, 5.0])) == 3.0
    assert not claim(0.5, 0.001, 0.001).shown(0.01)


def test_the_mean_is_taken_over_what_is_known_in_each_run():
    rows = np.arange(24.0).reshape(2, 3, 4)
    rows[0, 1, 2] = np.nan
    assert mean_of_known(rows) == pytest.approx([(66 - 6) / 11, 17.5])
    assert np.isnan(mean_of_known(np.full((3, 4), np.nan))).tolist() == [True]


def test_claims_are_made_of_the_mean_over_seeds_and_units():
    crossed = Crossed.of(TABLE)
    assert above(TABLE, 0.1).p[0] == pytest.approx(crossed.p_above(0.1))
    assert below(TABLE, 0.3).p[0] == pytest.approx(crossed.p_below(0.3))
    assert above(TABLE).p[0] == pytest.approx(crossed.p_above(0.0))
    assert (above(TABLE, 0.1).mu, above(TABLE).seeds) == (0.1, 4)
    assert above(TABLE).searches == below(TABLE).searches == 1
    batch = np.stack([TABLE, TABLE - 0.2, -TABLE])
    expected = [Crossed.of(x).p_below() for x in batch]
    assert below(batch).p == pytest.approx(expected)


def test_claims_are_joined_by_their_ps():
    claims = [claim(0.01, 0.2), claim(0.03), claim(0.5, 0.001)]
    claims[-1] = replace(claims[-1], mu=7.0)  # what is shown is the last one's
    assert every(claims).mu == some(claims).mu == 7.0
    assert every(claims).p == pytest.approx([0.5, 0.2])
    fair = corrected(claims)
    by_hand = [[0.03, 0.4 / 2], [0.06, 0.06], [0.5, 0.003]]
    assert [x.p.tolist() for x in fair] == [pytest.approx(x) for x in by_hand]
    assert corrected([]) == []
    (alone,) = corrected([claim(0.01)], beside=4)
    assert alone.p == pytest.approx([0.05])


def test_any_of_several_claims_is_shown_by_cauchys_tail():
    def combined(*p):
        return some([claim(x) for x in p]).p[0]

    # Claims that say the same cost nothing, and a single one among many what Holm asks.
    assert combined(0.004, 0.004, 0.004, 0.004) == pytest.approx(0.004)
    assert combined(0.0025, 0.5, 0.5, 0.5) == pytest.approx(0.01, rel=1e-3)
    assert combined(0.0025, 1.0, 0.9, 0.5) == pytest.approx(0.01, rel=1e-3)
    assert combined(0.7, 0.9) == combined(0.5, 0.5) == pytest.approx(0.5)
    assert combined(0.0, 0.3) < 1e-14
    p = np.array([0.02, 0.3, 0.04])
    expected = scipy.stats.cauchy.sf(np.tan(np.pi * (0.5 - p)).mean())
    assert combined(*p) == pytest.approx(expected)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.99])
def test_nothing_is_shown_too_often_however_claims_depend(rho):
    rng = np.random.default_rng(8)
    shared, own = rng.normal(size=(1, 100_000)), rng.normal(size=(4, 100_000))
    p = scipy.stats.norm.sf(np.sqrt(rho) * shared + np.sqrt(1 - rho) * own)
    found = some([claim(*x) for x in p])
    shown = (found.p <= 0.01).sum()
    assert shown <= scipy.stats.binom.isf(1e-5, 100_000, 0.0115)


def held(joined, level):
    """Return what is said of p without it, and what p says."""
    return joined.holds(level).tolist(), (joined.p <= level).tolist()


@pytest.mark.parametrize("level", [0.01, 0.025, 0.2])
@pytest.mark.parametrize("beside", [0, 2])
def test_what_is_shown_is_what_p_says(level, beside):
    """Of claims joined in any way: p of all sizes, the same often, and level itself."""
    rng = np.random.default_rng(4)
    sizes = np.array([1e-4, 0.3, 0.5, 1, 1.0001, 2, 4, 30]) * level
    claims = [claim(*rng.choice(sizes, 200)) for _ in range(3)] + [claim(level / 2)]
    for joined in (every(claims), some(claims), *corrected(claims[:3], beside)):
        shown, by_p = held(joined, level)
        assert shown == by_p
        assert 0 < sum(shown) < 200
        assert [joined.shown(level, run) for run in range(200)] == shown
        assert not joined.shown(0.0, 0)  # another level is another question
    assert corrected([]) == []


def test_claims_about_means_are_shown_without_their_ps():
    batch = np.random.default_rng(6).normal(0.1, 0.3, (60, 4, 30))
    for found in (above(batch, 0.1), below(batch, 0.1)):
        assert len(found.holds(0.3)) == 60
        assert np.array_equal(found.holds(0.3), found.p <= 0.3)
        assert 0 < found.holds(0.3).sum() < 60


def test_some_claims_that_are_all_shown_need_no_p():
    def never():
        raise AssertionError("p was sought")

    shown = replace(claim(0.5), find_p=never, holds=lambda level: np.array([level > 0]))
    assert some([shown, shown]).holds(0.01).tolist() == [True]
