"""Answers to claims about numbers by hand: which word, why, and what would decide."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm

from harness.records import Crossed, StatedClaim
from harness.verdicts import answer_claims
from tests.verdicts.by_hand import X, arms, by_row, by_seed, number
from tests.verdicts.simulated import (
    ATTACKS,
    Attack,
    S,
    changed,
    edited,
    flawless,
    lacking,
    scaled,
)

LABELS = ("treated", "baseline")
FLAWLESS = flawless(n=20)


def metric(bound, measure="gap", of="m.x", **told):
    return {"metric": of, "measure": measure, "bound": bound} | told


def attack(bound, label="flip", measure="dL", **told):
    return {"attack": label, "measure": measure, "bound": bound} | told


def cell(label, seed=1, *, flops=10.0, rows=100, errors=0, share=2.0):
    """Return what budgets are told from."""
    ref = SimpleNamespace(share=share, options={}, examples={})
    return SimpleNamespace(
        record=SimpleNamespace(id=f"{label}.{seed}", attack=ref),
        rows=range(rows),
        errors=errors,
        flops_per_example=lambda spent: flops,
    )


def answers(
    claims,
    told=([], None),
    *,
    findings=FLAWLESS,
    metrics=X[:1],
    cells=None,
    units=(),
    words=(),
    replays=False,
):
    """Return the answers to one group of claims, of a run that is as told.

    `told` are the numbers and rows of metrics; those of attacks are of findings.
    """
    sides = arms(*told)
    for side, label in zip(sides, LABELS, strict=True):
        known = {label: cell(label)} if cells is None else cells[label]
        side.model, side.label, side.role = "m", label, "treatment"
        side.cells = lambda _, known=known: known
        side.same_training = lambda _: True
    suite = SimpleNamespace(
        stated_claims=lambda: {"g": dict(zip("abcdefg", stated, strict=False))},
        models=["m"],
        metrics=metrics,
        seeds_of=lambda _: range(len(told[0]) or S),
    )
    stated = [StatedClaim(arm=LABELS[0], against=LABELS[1], **x) for x in claims]
    results = sides[0].results
    results.suite, results.claims_changes = suite, {}
    results.survey = SimpleNamespace(units=units)
    results.attack = lambda _: SimpleNamespace(replays=replays)
    results.arm = lambda _, label: sides[LABELS.index(label)]
    return answer_claims(results, findings, SimpleNamespace(arms=words))


def answered(claim, *told, **more):
    (found,) = answers([claim], *told, **more)
    return found


# --- words and p --------------------------------------------------------------------


def test_claims_are_answered_by_both_p_and_holm():
    """By hand: 0.1 with a standard error of 0.04, of two seeds."""
    told = by_seed(0.1, 0.1, error=0.04)
    bounds = ("> 0", "within 0.2", "< 0.05", "within 0.05")
    alone = [answered(metric(x), told) for x in bounds]
    supported = [norm.sf(2.5), norm.sf(2.5), norm.sf(-1.25), norm.sf(-1.25)]
    refuted = [norm.sf(-2.5), 1, norm.sf(1.25), 2 * norm.sf(1.25)]
    assert [x.p_supported for x in alone] == pytest.approx(supported)
    assert [x.p_refuted for x in alone] == pytest.approx(refuted)
    words = ["supported", "supported", "undecided", "undecided"]
    assert [x.answer for x in alone] == words
    first, second = answers([metric("> 0"), metric("< 0.05")], told)
    assert first.p_supported == pytest.approx(2 * supported[0])
    assert second.p_supported == pytest.approx(supported[2])
    assert first.p_refuted == pytest.approx(refuted[0])
    assert second.p_refuted == pytest.approx(2 * refuted[2])


def test_a_p_of_just_the_level_decides():
    """Bootstrap p of a single seed are whole multiples of 1e-4, 2.5 % among them."""
    table = np.random.default_rng(1).normal(0.3, 1.0, (1, 30))
    low, _ = Crossed.of(table).interval()
    found = answered(metric(f"> {low - 1e-9:.12f}"), by_row(table))
    assert (found.answer, found.p_supported) == ("supported", 0.025)
    found = answered(metric(f"< {low - 1e-9:.12f}"), by_row(table))
    assert (found.answer, found.p_refuted) == ("refuted", 0.025)


@pytest.mark.parametrize(
    ("bound", "apart", "shown"),
    [
        ("within 0.2", (0.1, -0.25, 0.15), -0.25),
        ("within 0.2", (0.1, -0.1, 0.3), 0.3),
        ("> 0", (0.1, 0.3, 0.2), 0.1),
        ("< 0.4", (0.1, 0.3, 0.2), 0.3),
    ],
)
def test_the_seed_nearest_to_or_furthest_beyond_a_bound_is_shown(bound, apart, shown):
    told = by_seed(*apart, error=0.01)
    found = answered(metric(bound, every_seed=True), told)
    assert found.estimate.value == pytest.approx(shown)


@pytest.mark.parametrize(
    ("seeds", "every", "scope"),
    [(2, False, "weights"), (3, False, "treatment"), (3, True, "weights")],
)
def test_three_seeds_speak_of_the_treatment(seeds, every, scope):
    told = by_seed(*np.linspace(0.1, 0.2, seeds), error=0.01)
    found = answered(metric("> 0", every_seed=every), told)
    assert (found.answer, found.scope, found.seeds) == ("supported", scope, seeds)


def test_an_estimate_counts_rows_or_else_seeds():
    table = np.random.default_rng(2).normal(0.3, 0.1, (3, 30))
    rows, seeds = (
        answered(metric("> 0"), told).estimate
        for told in (by_row(table), by_seed(0.1, 0.2, error=0.01))
    )
    assert (rows.n, seeds.n) == (30, 2)
    assert (rows.unit, rows.reason, seeds.reason) == ("points", None, None)


@pytest.mark.parametrize(
    ("told", "claim", "reason"),
    [
        (by_seed(0.1, 0.2), metric("> 0"), "without rows to pair, there is no "),
        (by_row(np.ones((1, 1))), metric("> 0"), "there is no interval from one doc"),
    ],
)
def test_why_a_number_has_no_interval_is_said(told, claim, reason):
    found = answered(claim, told)
    assert (found.answer, found.estimate.interval) == ("undecided", None)
    assert found.estimate.reason.startswith(reason)
    assert found.reasons[-1] == found.estimate.reason


# --- what is in the way -------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (by_row(np.linspace(0.1, 0.2, 20)[None]), None),
        (by_row(np.linspace(0.1, 0.2, 19)[None]), "19 rows are fewer than 20"),
        (by_row(np.ones((3, 1))), "1 rows are fewer than 20"),
        (by_seed(0.1, 0.2, error=0.01, n=20), None),
        (
            by_seed(0.1, 0.2, error=0.01, n=19),
            "the metric rests on 19 documents or task examples: fewer than 20",
        ),
    ],
)
def test_twenty_units_are_enough_and_fewer_are_not(told, reason):
    found = answered(metric("> 0"), told)
    assert found.answer == ("supported" if reason is None else "undecided")
    assert found.reasons[:1] == ([] if reason is None else [reason])


def test_rows_of_unequal_size_are_worth_fewer():
    """One of 25 that weighs as much as 5: 29^2 / (24 + 25) = 17.2 (Kish)."""
    _, sums = by_row(np.linspace(0.1, 0.2, 25)[None])
    sizes = np.append(np.ones(24), 5.0)
    told = [tuple((x * sizes, sizes) for x, _ in sums[0])]
    values = [float((x * sizes).sum() / 29) for x, _ in sums[0]]
    pairs = [tuple(number(x) for x in values)]
    found = answered(metric("> 0"), (pairs, told))
    assert found.reasons == [
        "25 rows of unequal size tell no more than 17 equal ones: fewer than 20"
    ]


def successes(own, base):
    """Return findings whose arms succeed on so many of 20 documents, in each seed."""
    findings = FLAWLESS
    for label, count in zip(LABELS, (own, base), strict=True):
        delta = findings.arm("m", label).cells["flip"].delta
        hit = (np.arange(20) < count)[None, :, None]
        delta = np.where(hit, 1.0, 0.2) + 1e-3 * delta
        findings = edited(findings, label, "flip", delta=delta)
    return scaled(findings, "baseline", "flip-random", 0.0)


@pytest.mark.parametrize(
    ("own", "base", "saturated"), [(19, 19, True), (20, 18, False), (18, 20, False)]
)
def test_success_is_saturated_where_it_is_so_on_both_arms(own, base, saturated):
    claim = attack("reduced by 90 %", measure="success", threshold=0.5)
    found = answered(claim, findings=successes(own, base))
    told = [x for x in found.reasons if x.startswith("success is saturated on both")]
    assert bool(told) is saturated
    assert found.sides == pytest.approx((own / 20, base / 20))


def test_success_that_is_too_rare_has_no_interval():
    claim = attack("reduced by 90 %", measure="success", threshold=0.5)
    found = answered(claim, findings=successes(10, 1))
    reason = "success on the other arm is too rare for a ratio to have an interval"
    assert (found.answer, found.reasons) == ("undecided", [reason])


@pytest.mark.parametrize(("errors", "decided"), [(1, True), (2, False)])
def test_one_row_in_a_hundred_may_end_in_an_error(errors, decided):
    delta = FLAWLESS.arm("m", "treated").cells["flip"].delta.copy()
    delta[0, :errors] = np.nan
    found = answered(
        attack("< 9"), findings=edited(FLAWLESS, "treated", "flip", delta=delta)
    )
    assert found.answer == ("supported" if decided else "undecided")


def unit(status="failed", **told):
    usual = {"model": "m", "arm": "treated", "seed": 0, "attack": None, "id": "u"}
    state = SimpleNamespace(status=status)
    return SimpleNamespace(**(usual | told), state=state)


@pytest.mark.parametrize(
    ("told", "matters"),
    [
        ({}, True),
        ({"arm": "baseline"}, True),
        ({"status": "complete"}, False),
        ({"arm": "another"}, False),
        ({"model": "another"}, False),
        ({"seed": 7}, False),
        ({"attack": "flip"}, False),
    ],
)
def test_only_units_of_a_claim_have_to_be_complete(told, matters):
    numbers = by_seed(0.1, 0.2, error=0.01)
    found = answered(metric("> 0"), numbers, units=[unit(**told)])
    assert found.answer == ("undecided" if matters else "supported")
    assert found.reasons == (["incomplete: u (failed)"] if matters else [])


# --- refusals -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bound", "measure", "unit", "refused"),
    [
        ("< 1", "gap", "fraction", True),
        ("within 1.5", "gap", "fraction", True),
        ("> -1.5", "gap", "fraction", True),
        ("< 0.99", "gap", "fraction", False),
        ("< 1.5", "gap", "points", False),
        ("< 150 %", "change", "fraction", False),
    ],
)
def test_no_gap_of_fractions_is_bounded_by_1_or_more(bound, measure, unit, refused):
    told = by_seed(0.1, 0.2, error=0.01, unit=unit)
    found = answered(metric(bound, measure), told)
    assert found.answer == ("refused" if refused else "supported")
    assert len(found.reasons) == refused


@pytest.mark.parametrize(
    ("verdict", "claim", "refused"),
    [
        ("broken", attack("< 9"), True),
        ("gradient-masked", attack("< 9"), True),
        ("equivalent", attack("< 9"), False),
        ("broken", metric("< 9"), False),
        ("gradient-masked", metric("< 9"), False),
        ("not applied", metric("< 9"), True),
        ("not applied", attack("< 9"), True),
    ],
)
@pytest.mark.parametrize("label", LABELS)
def test_what_an_arm_is_called_refuses_claims(verdict, claim, refused, label):
    """A broken arm is no evidence of what attacks do; its losses are as they are."""
    word = SimpleNamespace(model="m", arm=label, verdict=verdict, reasons=["why"])
    found = answered(claim, by_seed(0.1, 0.2, error=0.01), words=[word])
    assert found.answer == ("refused" if refused else "supported")
    assert (found.seeds == 0) is (found.estimate is None) is refused


@pytest.mark.parametrize("known", [("m", "m.n"), ("m.n", "m")])
def test_the_longest_label_of_a_metric_is_meant(known):
    told = by_seed(0.1, 0.2, error=0.01)
    found = answered(metric("> 0", of="m.n.x"), told, metrics=known)
    reason = "a record has no number 'x' of m.n (there are: none)"
    assert (found.answer, found.reasons) == ("undecided", [reason])


def beaten(*labels):
    """Return findings in which some attacks do no more harm than their control."""
    findings = FLAWLESS
    for label in labels:
        findings = scaled(findings, "baseline", label, 0.1)
    return findings


@pytest.mark.parametrize(
    ("label", "beaten_by_chance", "refused"),
    [
        ("flip", [], False),
        ("flip", ["flip"], True),
        ("flip", ["query"], False),
        ("query", ["flip"], False),
        ("flip-unbounded", ["flip"], True),
        ("flip-unbounded", ["query"], False),
        ("transfer", ["flip"], False),
        ("transfer", ["query"], False),
        ("transfer", ["flip", "query"], True),
        ("flip-random", ["flip", "query"], False),
    ],
)
def test_what_shows_that_an_attack_works(label, beaten_by_chance, refused):
    """It does, or what it is made of, or for prompts from elsewhere any attack."""
    found = answered(attack("< 9", label), findings=beaten(*beaten_by_chance))
    assert found.answer == ("refused" if refused else "supported")


def test_one_control_that_is_beaten_is_enough():
    """Of two, the second does as much harm as the attack."""
    sign = Attack("flip-sign", "control", of="flip", shows="search")
    findings = replace(FLAWLESS, attacks=ATTACKS | {sign.label: sign})
    for each in LABELS:
        known = findings.arm("m", each).cells
        cells = dict(known) | {sign.label: known["flip-unbounded"]}
        findings = changed(findings, each, cells=cells)
    assert answered(attack("< 9"), findings=findings).answer == "supported"
    lone = lacking(findings, "flip-random")
    assert answered(attack("< 9"), findings=lone).answer == "refused"


@pytest.mark.parametrize(
    ("own", "base", "replays", "refused"),
    [
        ({}, {}, False, False),
        ({"share": 1.0}, {}, False, True),
        ({}, {"flops": 9.0}, False, False),
        ({}, {"flops": 9.05}, False, False),
        ({}, {"flops": 8.9}, False, True),
        ({"flops": 8.9}, {}, False, True),
        ({}, {"flops": 8.9}, True, False),
        ({"errors": 1}, {"flops": 8.9}, False, True),
        ({"errors": 2}, {"flops": 8.9}, False, False),
        ({}, {"flops": 8.9, "errors": 2}, False, False),
    ],
)
def test_budgets_may_differ_by_a_tenth(own, base, replays, refused):
    """Beyond 1 % of errors, which cost less, and of prompts from elsewhere, by more."""
    told = zip(LABELS, (own, base), strict=True)
    cells = {label: {1: cell(label, **x)} for label, x in told}
    found = answered(attack("< 9"), cells=cells, replays=replays)
    assert found.answer == ("refused" if refused else "supported")


@pytest.mark.parametrize("lacking_one", LABELS)
def test_an_attack_that_one_arm_lacks_has_no_budget_there(lacking_one):
    cells = {label: {1: cell(label)} for label in LABELS} | {lacking_one: {}}
    assert answered(attack("< 9"), cells=cells).answer == "supported"


# --- why it stays open --------------------------------------------------------------

NEAR = by_seed(0.1, 0.1, error=0.04)
"""Its interval is 0.1 -+ 0.0784; p at 0.015 and 0.185 is 1.7 %."""
NO_ROWS = "what more documents would bring is not known without rows"
NO_DESIGN = "if it is as found, no design that was thought of decides"


@pytest.mark.parametrize(
    ("bound", "where"),
    [
        ("< 0.185", "within"),
        ("> 0.015", "within"),
        ("within 0.185", "within"),
        ("> 0.185", "outside"),
        ("< 0.015", "outside"),
        ("within 0.015", "outside"),
        ("< 0.1", None),
        ("> 0.1", None),
        ("within 0.1", None),
        ("<= {high}", "within"),
        (">= {low}", "within"),
        (">= {high}", None),
        ("<= {low}", None),
    ],
)
@pytest.mark.parametrize("family", [2, 3])
def test_holm_is_named_where_an_interval_alone_would_decide(bound, where, family):
    low, high = answered(metric("> 9"), NEAR).estimate.interval
    claim = metric(bound.format(low=repr(low), high=repr(high)))
    found = answers([claim] * family, NEAR)[0]
    why = (
        f"its interval is {where} the bound, but not after Holm's correction for the "
        f"{family} claims of the group"
    )
    assert found.answer == "undecided"
    assert found.reasons == [*([why] if where else []), NO_ROWS]


def test_both_ends_are_named_where_an_interval_alone_would_decide():
    """p at 0.013 is 1.5 %, of one end of two."""
    found = answered(metric("within 0.013"), NEAR)
    why = "its interval is outside the bound, but not after the correction for both "
    assert found.reasons == [why + "ends of the bound", NO_ROWS]


def test_other_seeds_are_named_where_the_worst_alone_would_decide():
    """The one that is furthest from 0 is sure to be below 0.2, another is not."""
    told = by_seed(0.1, error=0.02)[0] + by_seed(0.05, error=0.2)[0]
    found = answered(metric("< 0.2", every_seed=True), (told, None))
    why = "its interval is within the bound, but not under every other seed"
    assert found.reasons == [why, NO_ROWS]


# --- what would decide --------------------------------------------------------------


def centred(mean, seeds=3, n=40, sd=1.0):
    """Return a table of that mean."""
    table = np.random.default_rng(3).normal(0, sd, (seeds, n))
    return table - table.mean() + mean


def fewest(table, at, level, seeds=(3, 4, 5, 6, 8, 10, 15, 20)):
    """Return the design of fewest cells that finds how far a table is from a bound."""
    known = Crossed.of(table)
    goal = abs(known.mean - at)
    designs = itertools.product(seeds, [known.n * 2**i for i in range(5)])
    ordered = sorted(designs, key=math.prod)
    return next(x for x in ordered if known.detectable(level, 0.8, *x) <= goal)


@pytest.mark.parametrize(
    ("mean", "bound", "end", "family"),
    [
        (0.05, "within 0.2", 0.2, 1),
        (0.1, "within 0.26", 0.26, 1),
        (-0.1, "within 0.26", -0.26, 1),
        (0.42, "within 0.26", 0.26, 1),
        (-0.42, "within 0.26", -0.26, 1),
        (0.1, "< 0.26", 0.26, 1),
        (0.1, "> 0.26", 0.26, 1),
        (0.1, "< 0.32", 0.32, 4),
    ],
)
def test_the_nearer_end_says_what_would_decide(mean, bound, end, family):
    table = centred(mean)
    found = answers([metric(bound)] * family, by_row(table))[0]
    seeds, documents = fewest(table, end, 1 - 0.025 / family)
    assert (found.needed.seeds, found.needed.documents) == (seeds, documents)
    assert found.reasons[-1] == (
        f"if it is as found, {documents} rows x {seeds} seeds would decide in 80 % of "
        "cases"
    )


def test_more_seeds_do_not_help_where_each_has_to_decide():
    table = centred(0.0) + np.array([[0.0], [0.03], [0.05]])
    found = answered(metric("< 0.3", every_seed=True), by_row(table))
    assert found.sides[0] - found.sides[1] == pytest.approx(table[2].mean())
    one, documents = fewest(table[2:], 0.3, 0.975, seeds=(1,))
    assert (one, found.answer) == (1, "undecided")
    assert (found.needed.seeds, found.needed.documents) == (3, documents)


def test_more_documents_do_not_help_where_searches_differ():
    """Three of a universal attack under each seed, which stay as many as they are."""
    attacks = ATTACKS | {"flip": replace(ATTACKS["flip"], universal=True)}
    findings, rng = replace(FLAWLESS, attacks=attacks), np.random.default_rng(4)
    for label in LABELS:
        own = findings.arm("m", label).cells["flip"].delta[:, None, :, -1]
        apart = 0.3 * rng.normal(size=(5, 2, 1)) * (label == "treated")
        findings = edited(findings, label, "flip", replicates=own + apart)
    found = answered(attack("> -1", every_seed=True), findings=findings)
    assert (found.answer, found.reasons) == ("undecided", [NO_DESIGN])


@pytest.mark.parametrize(
    ("seeds", "every", "last"),
    [
        (1, False, "a single seed says nothing of what would decide: train three at"),
        (2, False, NO_DESIGN),
        (3, False, NO_DESIGN),
        (1, True, NO_DESIGN),
        (3, True, NO_DESIGN),
    ],
)
def test_what_no_design_decides_is_said(seeds, every, last):
    """A number that is just at the bound, and what a single seed does not know."""
    table = np.tile(centred(0.1, seeds=1), (seeds, 1))
    found = answered(metric("< 0.1000001", every_seed=every), by_row(table))
    assert (found.answer, found.needed) == ("undecided", None)
    assert found.reasons[-1].startswith(last)
