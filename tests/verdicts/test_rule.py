"""The rule, line by line: from a run in which all is well, one change at a time."""

from dataclasses import replace

import numpy as np
import pytest

from harness.records.margin import Margin
from harness.verdicts.case import Cases
from harness.verdicts.findings import Attack, Certificate, Replayed
from harness.verdicts.rule import decide, remarkable
from tests.verdicts import simulated
from tests.verdicts.simulated import (
    arm,
    changed,
    edited,
    flawless,
    lacking,
    matched,
    scaled,
    without,
)


def decided(findings, label="treated"):
    (case,) = [x for x in Cases(findings).judged if x.arm.label == label]
    return decide(case)


def word(findings, label="treated"):
    return decided(findings, label).word


def asked(findings, label, name, **changes):
    """Return findings with the answers of a subject changed."""
    examined = dict(findings.arm("m", label).examined)
    examined[name] = replace(examined[name], **changes)
    return changed(findings, label, examined=examined)


def measured(findings, label, name, value):
    values = findings.arm("m", label).examined[name].values
    return asked(findings, label, name, values=np.full_like(values, value))


UNITED = ("flip", "flip-random", "flip-permuted", "query", "query-random", "transfer")
HARDER = flawless(0.5)
EASIER = flawless(1.5)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (0.5, "harder to attack"),
        (0.8, "undecided"),  # less than the detection limit
        (1.0, "equivalent"),
        (1.5, "easier to attack"),
    ],
)
def test_a_run_in_which_all_is_well_gets_the_word_of_its_difference(scale, expected):
    findings = flawless(scale)
    assert word(findings) == expected
    assert word(findings, "baseline") == "reference"


def test_three_seeds_speak_of_the_treatment():
    assert word(flawless(0.5, seeds=3)) == "harder to attack"


# --- 1: nothing asked ---------------------------------------------------------------


def test_without_diagnostics_or_an_attack_nothing_is_decided():
    none = decided(replace(HARDER, diagnostics="none"))
    assert (none.word, none.reasons) == (
        "undecided",
        ["the suite asks for no diagnostics"],
    )
    idle = {x: replace(y, role="idle") for x, y in HARDER.attacks.items()}
    found = decided(replace(HARDER, attacks=idle))
    assert (found.word, found.reasons) == ("undecided", ["no attack searches"])


# --- 2: do attacks work on the reference arm? ---------------------------------------


@pytest.mark.parametrize(
    ("label", "expected"),
    [("baseline", "attack invalid"), ("treated", "undecided")],
)
def test_losses_that_are_not_deterministic_decide(label, expected):
    findings = asked(HARDER, label, "determinism", fault="the same pass differs")
    found = decided(findings)
    assert (found.word, found.decided_by) == (expected, ["determinism"])


@pytest.mark.parametrize(
    ("error", "expected"), [(0.05, "harder to attack"), (0.0501, "attack invalid")]
)
def test_slopes_have_to_be_true_on_the_reference_arm(error, expected):
    findings = measured(HARDER, "baseline", "gradient_truth", error)
    assert word(measured(findings, "treated", "gradient_truth", error)) == expected


@pytest.mark.parametrize("label", ["baseline", "treated"])
def test_losses_that_nobody_examined_decide_nothing(label):
    """Of the reference arm: of no arm that is held against it, either."""
    examined = dict(HARDER.arm("m", label).examined)
    del examined["determinism"]
    findings = changed(HARDER, label, examined=examined)
    for arm_label in ("baseline", "treated") if label == "baseline" else (label,):
        found = decided(findings, arm_label)
        assert (found.word, found.decided_by) == ("undecided", ["determinism"])
        assert f"{label} was not examined" in found.reasons[0]


def test_slopes_that_are_no_numbers_are_not_true():
    values = HARDER.arm("m", "baseline").examined["gradient_truth"].values.copy()
    values[:, :-1] = np.nan
    findings = asked(HARDER, "baseline", "gradient_truth", values=values)
    assert word(findings) == "attack invalid"


def test_an_attack_has_to_beat_its_random_control_on_the_reference_arm():
    flip_fails = scaled(HARDER, "baseline", "flip-random", 2.0)
    assert word(flip_fails) == "harder to attack"  # `query` works
    (_, invalid) = decided(flip_fails, "baseline").reasons
    assert invalid.startswith("flip is not shown to work")
    both_fail = scaled(flip_fails, "baseline", "query-random", 2.0)
    for label in ("treated", "baseline"):
        found = decided(both_fail, label)
        assert (found.word, found.decided_by) == ("attack invalid", ["beats_random"])
        assert len(found.reasons) == 2


def test_where_both_meet_at_a_large_budget_a_smaller_one_counts():
    findings = scaled(HARDER, "baseline", "query-random", 2.0)
    met = findings.arm("m", "baseline").cells["flip"].delta
    slow = met * np.array([0.5, 0.8, 1.0, 1.01])
    findings = edited(findings, "baseline", "flip-random", delta=slow)
    assert word(findings) == "harder to attack"
    assert word(edited(findings, "baseline", "flip-random", delta=met * 1.01)) == (
        "attack invalid"
    )


def test_a_control_that_failed_is_not_beaten():
    failed = np.full_like(HARDER.arm("m", "baseline").cells["flip"].delta, np.nan)
    findings = edited(HARDER, "baseline", "flip-random", delta=failed)
    findings = edited(findings, "baseline", "query-random", delta=failed)
    assert word(findings) == "attack invalid"


def test_without_a_control_nothing_shows_that_an_attack_works():
    one = scaled(without(HARDER, "baseline", "flip-random"), "baseline", "query", 0.1)
    found = decided(one)
    assert found.word == "undecided"
    assert found.reasons[0].startswith("nothing shows that flip works on baseline")
    assert "flip-random is not complete on baseline" in found.reasons[0]


def test_without_any_control_nothing_shows_that_an_attack_works():
    found = decided(lacking(HARDER, "flip-random", "query-random"))
    reason = "nothing shows that flip, query works on baseline"
    assert (found.word, found.reasons) == ("undecided", [reason])


@pytest.mark.parametrize(
    ("harm", "expected"),
    [(0.6, "harder to attack"), (2.0, "attack invalid"), (None, "undecided")],
)
def test_an_attack_has_to_beat_each_of_its_random_controls(harm, expected):
    findings = scaled(HARDER, "baseline", "query-random", 2.0)
    another = Attack("another", "control", of="flip", shows="search")
    findings = replace(findings, attacks=findings.attacks | {"another": another})
    for label in ("baseline", "treated") if harm else ("treated",):
        cells = dict(findings.arm("m", label).cells)
        scale = harm or 0.6 if label == "baseline" else 0.6
        cells["another"] = replace(cells["flip"], delta=scale * cells["flip"].delta)
        findings = changed(findings, label, cells=cells)
    assert word(findings) == expected


# --- 3 to 5 -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("certificate", "expected"),
    [
        (Certificate(False, 8, 8), "harder to attack"),
        (Certificate(False, 7, 8), "not applied"),
        (Certificate(True, 8, 8), "not applied"),
        (Certificate(False, 9, 8), "harder to attack"),
    ],
)
def test_what_was_promised_has_to_be_there_under_every_seed(certificate, expected):
    promised = [Certificate(False, 8, 8), certificate]
    assert word(changed(HARDER, "treated", certificates=promised)) == expected


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("broken", [Certificate(True, 8, 8), Certificate(False, 7, 8)])
def test_a_promise_that_the_reference_arm_breaks_leaves_it_undecided(scale, broken):
    findings = changed(flawless(scale), "baseline", certificates=[broken])
    found = decided(findings)
    assert found.word == "undecided"
    assert found.reasons[0].startswith("on baseline: ")
    assert word(findings, "baseline") == "not applied"


@pytest.mark.parametrize(
    ("off", "expected"), [(0.0, "equivalent"), (1e-6, "broken"), (-1e-6, "equivalent")]
)
def test_an_arm_worse_alone_than_its_reference_arm_attacked_is_broken(off, expected):
    findings = flawless(1.0)
    attacked = Cases(findings).judged[1].contrast.attacked_reference[0]
    base = findings.arm("m", "baseline")
    worst = np.max([base.cells[x].delta[..., 3] for x in UNITED], axis=0)
    assert attacked == pytest.approx((base.clean + worst).mean())
    clean = np.full_like(base.clean, attacked + off)
    assert word(changed(findings, "treated", clean=clean)) == expected


# --- 6: masking ---------------------------------------------------------------------


def test_a_gradient_free_attack_that_does_more_on_the_arm_alone_is_masking():
    weak = scaled(HARDER, "treated", "flip", 0.5)
    found = decided(weak)
    assert found.word == "gradient-masked"
    assert found.decided_by == ["gradient_ablation"]
    assert len(found.reasons) == 2  # of `query`, and of random search
    # The attack is as bad on the reference arm: that is the attack's.
    assert word(scaled(weak, "baseline", "flip", 0.5)) != "gradient-masked"


def test_an_advantage_that_is_only_larger_than_elsewhere_is_none():
    findings = scaled(HARDER, "treated", "flip", 0.9)
    advantage = 0.5 * (simulated.HARM["query"] - 0.9 * simulated.HARM["flip"])
    assert advantage < 0  # and larger than on the baseline arm
    assert word(findings) != "gradient-masked"


def test_an_arm_that_halves_every_dl_is_not_masked():
    findings = HARDER
    for label in ("baseline", "treated"):
        findings = scaled(findings, label, "flip", 0.5)
    assert word(findings) not in ("gradient-masked", "attack invalid")


@pytest.mark.parametrize(
    ("times", "masked"), [(1.0, True), (2.0, False), (8.0, False), (8.1, False)]
)
def test_budgets_are_compared_where_they_are_equal(times, masked):
    """`query` does more from its largest budget on alone, which costs too much."""
    findings = scaled(HARDER, "treated", "flip", 0.7)
    findings = without(findings, "treated", "flip-random")
    late = findings.arm("m", "treated").cells["query"].delta * [0.1, 0.2, 0.3, 1.0]
    findings = edited(findings, "treated", "query", delta=late)
    for label in ("baseline", "treated"):
        flops = findings.arm("m", label).cells["query"].flops * times
        findings = edited(findings, label, "query", flops=flops)
    assert (word(findings) == "gradient-masked") is masked


def test_what_was_found_elsewhere_and_does_more_is_masking():
    carried = HARDER.arm("m", "treated").cells["transfer"]
    findings = edited(
        HARDER,
        "treated",
        "transfer",
        sources={x: 4.0 * y for x, y in carried.sources.items()},
    )
    found = decided(findings)
    assert (found.word, found.decided_by) == ("gradient-masked", ["transfer"])
    back = HARDER.arm("m", "baseline").cells["transfer"].sources["treated"]
    findings = edited(findings, "baseline", "transfer", sources={"treated": 8.0 * back})
    assert word(findings) != "gradient-masked"  # so it is there


@pytest.mark.parametrize(
    ("name", "base", "own", "masked"),
    [
        ("gradient_health", 0.2, 0.201, False),
        ("gradient_health", 0.2, 0.2011, True),
        ("gradient_truth", 0.01, 0.06, False),
        ("gradient_truth", 0.01, 0.0601, True),
        ("first_order_fidelity", 0.4, 0.2, False),
        ("first_order_fidelity", 0.4, 0.1999, True),
        ("first_order_fidelity", 0.8, 0.3999, True),
    ],
)
def test_a_gradient_worse_than_that_of_the_reference_arm_is_masking(
    name, base, own, masked
):
    findings = measured(measured(HARDER, "baseline", name, base), "treated", name, own)
    found = decided(findings)
    assert found.word == ("gradient-masked" if masked else "harder to attack")
    assert found.decided_by == ([name] if masked else [])


def test_no_single_example_hides_that_a_gradient_is_off_on_most():
    values = np.full_like(
        HARDER.arm("m", "treated").examined["gradient_truth"].values, 1.5
    )
    values[:, ::4], values[0, 0] = 0.01, 1e6
    findings = asked(HARDER, "treated", "gradient_truth", values=values)
    assert word(findings) == "gradient-masked"


@pytest.mark.parametrize("name", ["gradient_truth", "first_order_fidelity"])
def test_a_gradient_that_is_no_number_on_most_examples_is_masking(name):
    values = HARDER.arm("m", "treated").examined[name].values.copy()
    values[:, 4:] = np.nan
    found = decided(asked(HARDER, "treated", name, values=values))
    assert (found.word, found.decided_by) == ("gradient-masked", [name])


def test_what_is_no_number_on_either_arm_is_no_sign_of_one():
    findings, name = HARDER, "first_order_fidelity"
    values = HARDER.arm("m", "treated").examined[name].values.copy()
    values[:, 4:] = np.nan
    for label in ("baseline", "treated"):
        findings = asked(findings, label, name, values=values)
    assert word(findings) == "harder to attack"


# --- 7: can any of it be trusted? ---------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"holes": ["m.treated.s1.flip (failed)"]}, "completeness"),
        ({"replayed": [Replayed("a", 1e-6), Replayed("b", fault="stale")]}, "replay"),
        ({"replayed": [Replayed("a", 1.01e-3)]}, "replay"),
        ({"replayed": [Replayed("a", np.nan)]}, "replay"),
        ({"replayed": [Replayed("a")]}, "replay"),
        ({"replayed": []}, "replay"),
        ({"replayed": [Replayed("a", 1e-3)]}, None),
    ],
)
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_what_is_missing_or_off_the_record_leaves_it_undecided(scale, changes, name):
    findings = flawless(scale)
    found = decided(changed(findings, "treated", **changes))
    expected = word(findings) if name is None else "undecided"
    assert found.word == expected
    assert list(found.decided_by) == ([] if name is None else [name])


@pytest.mark.parametrize(("n", "expected"), [(19, "undecided"), (20, "equivalent")])
def test_fewer_than_twenty_documents_say_nothing(n, expected):
    assert word(flawless(1.0, n=n)) == expected


def test_without_a_cell_no_documents_are_counted():
    found = decided(changed(flawless(1.0, n=19), "treated", cells={}))
    reason = "no attack is complete on both it and baseline"
    assert (found.word, found.reasons) == ("undecided", [reason])


def test_units_are_counted_and_not_examples():
    units = [f"author {i // 2}" for i in range(simulated.N)]
    models = {"m": replace(HARDER.models["m"], units=units)}
    found = decided(replace(HARDER, models=models))
    assert found.reasons == ["12 documents are fewer than 20"]


@pytest.mark.parametrize(
    ("scale", "expected"),
    [(1.0, "harder to attack"), (0.7, "undecided"), (1.4, "undecided")],
)
def test_a_replica_that_is_told_apart_takes_every_word_away(scale, expected):
    rng = np.random.default_rng(9)
    replica = arm("replica", "baseline", scale, rng, ["baseline"], role="replica")
    findings = replace(HARDER, arms=[*HARDER.arms, replica])
    assert word(findings) == expected
    # A replica is no treatment: it makes no claim that Holm has to pay for.
    claims = [Cases(x).judged[1].harder.p[0] for x in (HARDER, findings)]
    assert claims[0] == claims[1]


def test_a_replica_that_is_masked_takes_every_word_away_too():
    rng = np.random.default_rng(9)
    replica = arm("replica", "baseline", 1.0, rng, ["baseline"], role="replica")
    findings = replace(HARDER, arms=[*HARDER.arms, replica])
    assert word(measured(findings, "replica", "gradient_truth", 0.5)) == "undecided"


def fewer_seeds(replica):
    there = np.arange(simulated.S) < 2
    cells = {x: replace(y, there=there) for x, y in replica.cells.items()}
    return {"cells": cells}


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda _: {"cells": {}}, "none of its cells is complete"),
        (fewer_seeds, "it has fewer seeds than 3"),
        (lambda x: {"cells": {"query": x.cells["query"]}}, "it lacks flip"),
        (
            lambda _: {"holes": ["m.replica.s1 (failed)"], "replayed": []},
            "not complete: m.replica",
        ),
        (lambda _: {"replayed": []}, "no cell of replica was replayed"),
    ],
)
def test_a_replica_of_which_too_little_is_known_takes_every_word_away(
    scale, change, why
):
    findings = flawless(scale)
    rng = np.random.default_rng(9)
    replica = arm("replica", "baseline", 1.0, rng, ["baseline"], role="replica")
    replica = replace(replica, cells={x: replica.cells[x] for x in ("flip", "query")})
    assert word(replace(findings, arms=[*findings.arms, replica])) == word(findings)
    lacking = replace(replica, **change(replica))
    found = decided(replace(findings, arms=[*findings.arms, lacking]))
    assert found.word == "undecided"
    assert "whether replica is told apart is not known: " in found.reasons[0]
    assert why in found.reasons[0]


# --- 8: the margin ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "within"),
    [(0.89, False), (0.91, True), (1.09, True), (1.11, False)],
)
@pytest.mark.parametrize(
    "margin", [Margin(relative=0.1), Margin(nats=0.1)], ids=["relative", "nats"]
)
def test_a_difference_within_the_margin_is_none_though_it_is_there(
    scale, within, margin
):
    findings = flawless(scale, noise=0.002, margin=margin)
    case = Cases(findings).judged[1]
    directed = case.harder if scale < 1 else case.easier
    assert directed.p[0] < 0.01
    assert (word(findings) == "equivalent") is within


def test_a_wider_margin_has_more_within_it():
    assert word(flawless(0.7, margin=Margin(relative=0.4))) == "equivalent"
    assert word(flawless(0.7, margin=Margin(nats=0.4))) == "equivalent"
    assert word(flawless(0.6, margin=Margin(nats=0.1))) == "harder to attack"


# --- 9 and 10: levels ---------------------------------------------------------------


def with_p(claim, *p):
    found = np.array(p)
    return replace(claim, find_p=lambda: found, holds=lambda level: found <= level)


@pytest.mark.parametrize(("p", "said"), [(0.01, True), (0.0101, False)])
@pytest.mark.parametrize("side", ["harder", "easier"])
def test_directions_are_said_at_one_percent_after_holm(side, p, said):
    findings = {"harder": HARDER, "easier": EASIER}[side]
    cases = Cases(findings)
    (case,) = [x for x in cases.judged if x.arm.label == "treated"]
    claim = getattr(case, side)
    setattr(cases, side, {case.arm: with_p(claim, p)})
    expected = f"{side} to attack" if said else "undecided"
    assert decide(case).word == expected


def test_the_first_run_is_decided_where_none_is_named():
    cases = Cases(HARDER)
    case = cases.judged[1]
    case.contrast.harder = with_p(case.contrast.harder, 0.01, 0.5, 0.5)
    cases.harder = {case.arm: case.contrast.harder}
    words = [decide(case).word, *(decide(case, run).word for run in range(3))]
    assert words == ["harder to attack"] * 2 + ["undecided"] * 2
    assert (remarkable(case), remarkable(case, 1)) == (True, False)


@pytest.mark.parametrize(("p", "said"), [(0.025, True), (0.0251, False)])
def test_equivalence_is_said_at_two_and_a_half_percent(p, said):
    case = Cases(flawless(1.0)).judged[1]
    case.contrast.equivalent = with_p(case.contrast.equivalent, p)
    assert (decide(case).word == "equivalent") is said


def test_contrasts_are_corrected_for_their_number():
    one = Cases(HARDER).judged[1].harder.p[0]
    rng = np.random.default_rng(9)
    others = [arm(f"other{i}", "baseline", 1.0, rng, ["baseline"]) for i in range(3)]
    many = Cases(replace(HARDER, arms=[*HARDER.arms, *others])).judged[1].harder.p[0]
    assert many == pytest.approx(4 * one)
    beside = Cases(HARDER, beside=3).judged[1].harder.p[0]
    assert beside == pytest.approx(many)


@pytest.mark.parametrize("share", range(4))
@pytest.mark.parametrize("findings", [HARDER, EASIER], ids=["harder", "easier"])
def test_a_difference_has_to_be_there_at_every_budget(findings, share):
    for label in UNITED:
        delta = findings.arm("m", "treated").cells[label].delta.copy()
        base = findings.arm("m", "baseline").cells[label].delta
        delta[..., share] = base[..., share]
        findings = edited(findings, "treated", label, delta=delta)
    assert word(findings) in ("undecided", "equivalent")


# --- 9 and 10: what stands in the way -----------------------------------------------


def asking(findings, subject):
    """Return the other arm of the two."""
    return "baseline" if subject == "treated" else "treated"


def no_plants(findings, subject):
    return changed(findings, subject, plants=[])


def nothing_found(findings, subject):
    plants = [replace(x, reached={}) for x in findings.arm("m", subject).plants]
    return changed(findings, subject, plants=plants)


def no_match(findings, _):
    return changed(findings, "treated", matches=[])


def loose_match(findings, _):
    return changed(findings, "treated", matches=[matched(apart=0.06)])


def unattacked_match(findings, _):
    return changed(findings, "treated-matched", cells={})


def match_under_fewer_seeds(findings, _):
    cells = findings.arm("m", "treated-matched").cells
    there = np.arange(simulated.S) > 0
    fewer = {label: replace(cell, there=there) for label, cell in cells.items()}
    return changed(findings, "treated-matched", cells=fewer)


def unexamined(findings, subject):
    examined = findings.arm("m", subject).examined
    losses_alone = {"determinism": examined["determinism"]}
    return changed(findings, subject, examined=losses_alone)


def no_carrying(findings, subject):
    return edited(findings, subject, "transfer", sources={})


def carried_in_vain(findings, subject):
    """What was carried has a loss on all rows but three of 120."""
    cell = findings.arm("m", subject).cells["transfer"]
    sources = {x: rows.copy() for x, rows in cell.sources.items()}
    for rows in sources.values():
        rows[:3, 0] = np.nan
    return edited(findings, subject, "transfer", sources=sources)


def not_asked_in_full(findings, _):
    attacks = {x: y for x, y in findings.attacks.items() if y.role != "unbounded"}
    return replace(findings, diagnostics="standard", attacks=attacks)


def nothing_carried(findings, _):
    attacks = {x: y for x, y in findings.attacks.items() if y.role != "transfer"}
    return replace(findings, diagnostics="standard", attacks=attacks)


def no_shuffled_control(findings, _):
    return lacking(findings, "flip-permuted")


def no_form_without_limit(findings, _):
    return lacking(findings, "flip-unbounded", "flip-unbounded-random")


def no_replay_of_others(findings, _):
    return lacking(findings, "transfer")


def cheaper_than_all_without_gradient(findings, _):
    for label in ("baseline", "treated"):
        flops = findings.arm("m", label).cells["query"].flops * 8.1
        findings = edited(findings, label, "query", flops=flops)
    return findings


def less_than_anothers_control(findings, subject):
    return scaled(findings, subject, "query-random", 2.0)


def lost_to_random(findings, subject):
    return scaled(findings, subject, "flip-random", 1.6)


def no_control(findings, subject):
    return without(findings, subject, "flip-random")


def as_good_without_gradient(findings, subject):
    return scaled(findings, subject, "flip-permuted", 1.5)


def bound_to_fail(findings, subject):
    return scaled(findings, subject, "flip-unbounded", 0.6)


def bound_without_control(findings, subject):
    return without(findings, subject, "flip-unbounded-random")


def not_converged(findings, subject):
    growth = np.array([0.8, 0.85, 0.9, 1.1])
    flat = findings.arm("m", subject).cells["flip"].delta[..., 3:]
    return edited(findings, subject, "flip", delta=flat * growth)


def falling(findings, subject):
    fall = np.array([1.15, 1.0, 1.0, 1.0])
    flat = findings.arm("m", subject).cells["flip"].delta[..., 3:]
    return edited(findings, subject, "flip", delta=flat * fall)


def no_checkpoints(findings, subject):
    return edited(findings, subject, "flip", checkpoints=False)


def gradients_alone(findings, _):
    attacks = dict(findings.attacks)
    attacks["query"] = replace(attacks["query"], gradients=True)
    return replace(findings, attacks=attacks)


def stronger_and_unproven(findings, subject):
    """`query` is the strongest, at no budget better than random search."""
    for label in ("baseline", "treated"):
        findings = scaled(findings, label, "query", 1.4)
    return scaled(findings, subject, "query-random", 2.0)


@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        (no_plants, "planted_weakness", "no weakness was planted"),
        (nothing_found, "planted_weakness", "is reliably found"),
        (no_match, "equal_clean_loss", "no arm was made to match"),
        (loose_match, "equal_clean_loss", "not shown to be within 0.05"),
        (unattacked_match, "equal_clean_loss", "has not been attacked alike"),
        (match_under_fewer_seeds, "equal_clean_loss", "has not been attacked alike"),
        (unexamined, "gradient_health", "was not examined"),
        (no_carrying, "transfer", "has nothing of"),
        (carried_in_vain, "transfer", "more than 1% of its rows on"),
        (not_asked_in_full, "unbounded_sanity", "diagnostics: full adds it"),
        (nothing_carried, "transfer", "diagnostics: full adds it"),
        (no_shuffled_control, "gradient_ablation", "that shuffles its gradients"),
        (no_form_without_limit, "unbounded_sanity", "with every token free"),
        (no_replay_of_others, "transfer", "nothing was carried"),
        (
            cheaper_than_all_without_gradient,
            "gradient_ablation",
            "query kept no prompt of as small a budget",
        ),
        (
            less_than_anothers_control,
            "beats_random",
            "query-random, a control of query, does more harm",
        ),
        (lost_to_random, "beats_random", "than flip-random at any budget"),
        (no_control, "beats_random", "flip-random is not complete"),
        (as_good_without_gradient, "gradient_ablation", "than flip-permuted"),
        (bound_to_fail, "unbounded_sanity", "with every token free"),
        (bound_without_control, "unbounded_sanity", "is not complete"),
        (not_converged, "convergence", "is not shown to gain as little"),
        (falling, "budget_curve", "a larger budget is not shown"),
        (no_checkpoints, "convergence", "keeps no prompts of smaller budgets"),
        (no_checkpoints, "budget_curve", "keeps no prompts of smaller budgets"),
        (gradients_alone, None, "no attack that needs no gradient"),
        (stronger_and_unproven, "beats_random", "than query-random"),
    ],
)
@pytest.mark.parametrize("side", ["harder", "easier"])
def test_one_answer_less_and_no_direction_is_said(side, change, name, reason):
    findings = {"harder": HARDER, "easier": EASIER}[side]
    subject = {"harder": "treated", "easier": "baseline"}[side]
    found = decided(change(findings, subject))
    assert found.word == "undecided"
    assert found.reasons[0].startswith(f"it would be {side} to attack, but for this")
    assert reason in "; ".join(found.reasons)
    if name is not None:
        assert name in found.decided_by


def test_what_does_not_apply_to_an_attack_is_not_asked():
    attacks = dict(lacking(HARDER, "flip-unbounded", "flip-unbounded-random").attacks)
    attacks["flip"] = replace(attacks["flip"], limited=False)
    assert word(replace(HARDER, attacks=attacks)) == "harder to attack"
    # Nothing needs to be carried where no attack has a gradient to lose.
    attacks = dict(lacking(HARDER, "transfer", "flip-permuted").attacks)
    attacks["flip"] = replace(attacks["flip"], gradients=False)
    assert word(replace(HARDER, attacks=attacks)) == "harder to attack"


def test_an_attack_may_meet_its_own_control_at_the_largest_budget():
    met = HARDER.arm("m", "treated").cells["flip"].delta
    noise = 0.05 * np.random.default_rng(3).standard_normal(met.shape[:2])
    slow = met * np.array([0.5, 0.8, 1.0, 1.0])
    slow[..., 3] += noise - noise.mean() + 0.001
    findings = edited(HARDER, "treated", "flip-random", delta=slow)
    assert word(findings) == "harder to attack"


ADDED = "diagnostics: full adds it"
NO_PLANT = f"no weakness was planted into a copy of treated: {ADDED}"
NO_MATCH = f"no arm was made to match its clean loss: {ADDED}"
LOST = "it is not shown to do more harm than flip-random at any budget"


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ([no_plants], [f"without an answer: planted_weakness: {NO_PLANT}"]),
        (
            [no_match, no_plants],
            [
                f"without an answer: equal_clean_loss: {NO_MATCH}; "
                f"planted_weakness: {NO_PLANT}"
            ],
        ),
        (
            [unattacked_match],
            [
                "without an answer: treated-matched has not been attacked alike",
            ],
        ),
        ([lost_to_random], [f"beats_random (flip): {LOST}"]),
        (
            [gradients_alone, lost_to_random, no_plants],
            [
                "no attack that needs no gradient is among those run",
                f"beats_random (flip): {LOST}",
                f"without an answer: planted_weakness: {NO_PLANT}",
            ],
        ),
    ],
)
def test_what_has_no_answer_is_told_from_what_was_not_passed(changes, reasons):
    findings = HARDER
    for change in changes:
        findings = change(findings, "treated")
    lead = "it would be harder to attack, but for this: "
    assert decided(findings).reasons == [lead + reasons[0], *reasons[1:]]


def test_harm_that_is_no_control_of_another_attack_is_in_the_way_of_nothing():
    """A replay may do most, and a control as much as the strongest attack."""
    findings = HARDER
    for label in ("baseline", "treated"):
        findings = scaled(findings, label, "transfer", 2.4)
    assert word(findings) == "harder to attack"
    strongest = HARDER.arm("m", "treated").cells["flip"].delta
    as_much = edited(HARDER, "treated", "query-random", delta=strongest)
    assert word(as_much) == "harder to attack"


@pytest.mark.parametrize(
    ("own", "others", "said"),
    [(1.2, 0.7, True), (0.8, 1.7, False), (1.2, np.nan, True), (1.2, 1.2, False)],
)
def test_the_strongest_attack_is_that_of_the_largest_mean_over_searches(
    own, others, said
):
    """`uat` cannot be the proof; it is no stronger than `flip` if searches are even."""
    findings = replace(
        HARDER, attacks=HARDER.attacks | {"uat": Attack("uat", universal=True)}
    )
    for label in ("baseline", "treated"):
        cells = dict(findings.arm("m", label).cells)
        flip = cells["flip"].delta
        searches = np.stack([flip[..., -1] * others] * 2, axis=1)
        cells["uat"] = replace(cells["flip"], delta=flip * own, replicates=searches)
        findings = changed(findings, label, cells=cells)
    assert (word(findings) == "harder to attack") is said


# --- many runs at once --------------------------------------------------------------


def together(*runs):
    """Return one run whose losses are those of several, side by side."""

    def beside(label, attack):
        cells = [run.arm("m", label).cells[attack] for run in runs]
        sources = {
            x: np.stack([cell.sources[x] for cell in cells]) for x in cells[0].sources
        }
        delta = np.stack([cell.delta for cell in cells])
        return replace(cells[0], delta=delta, sources=sources)

    arms = [
        replace(arm, cells={attack: beside(arm.label, attack) for attack in arm.cells})
        for arm in runs[0].arms
    ]
    return replace(runs[0], arms=arms)


def test_each_of_many_runs_is_decided_as_it_would_be_alone():
    runs = [
        flawless(0.8),
        HARDER,
        EASIER,
        flawless(1.0),
        scaled(HARDER, "treated", "flip", 0.5),
        stronger_and_unproven(HARDER, "treated"),
        not_converged(HARDER, "treated"),
        lost_to_random(HARDER, "treated"),
        less_than_anothers_control(HARDER, "treated"),
        scaled(scaled(HARDER, "baseline", "flip", 0.5), "baseline", "query", 0.5),
        bound_to_fail(EASIER, "baseline"),
    ]
    alone = [decided(run) for run in runs]
    assert len({found.word for found in alone}) == 6
    (_, case) = Cases(together(*runs)).judged
    assert [decide(case, i) for i in range(len(runs))] == alone
    statuses = [case.for_harder.planted_weakness(i).status() for i in (0, 1, -1)]
    assert statuses == ["fail", "pass", "pass"]
    assert case.for_harder.planted_weakness().status() == "fail"


# --- errors -------------------------------------------------------------------------


def failing(findings, label, count):
    """Return findings in which a replay failed on so many rows of an arm."""
    delta = findings.arm("m", label).cells["transfer"].delta.copy()
    for index in range(count):
        delta[index % len(delta), index] = np.nan
    return edited(findings, label, "transfer", delta=delta)


@pytest.mark.parametrize("label", ["baseline", "treated"])
@pytest.mark.parametrize(
    ("n", "count", "said"), [(24, 1, True), (24, 2, False), (20, 1, True)]
)
@pytest.mark.parametrize(("scale", "side"), [(0.3, "harder"), (2.0, "easier")])
def test_more_errors_than_one_in_a_hundred_forbid_a_direction(
    label, n, count, said, scale, side
):
    found = decided(failing(flawless(scale, n=n), label, count))
    assert found.word == (f"{side} to attack" if said else "undecided")
    told = any(f"of the rows of {label}" in reason for reason in found.reasons)
    assert told is not said


# --- these weights ------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (0.5, "lower on these weights"),
        (1.0, "within the margin on these weights"),
        (1.5, "higher on these weights"),
    ],
)
def test_few_seeds_speak_of_these_weights(seeds, scale, expected):
    assert word(flawless(scale, seeds=seeds)) == expected


def test_of_these_weights_what_is_open_is_named_and_errors_forbid():
    findings = flawless(0.5, seeds=2)
    found = decided(changed(findings, "treated", plants=[]))
    assert found.word == "lower on these weights"
    assert found.decided_by == ["planted_weakness"]
    (said,) = [x for x in found.reasons if x.startswith("open: ")]
    assert "no weakness was planted" in said
    assert word(failing(findings, "treated", 1)) == "undecided"
    assert word(changed(findings, "treated", holes=["x (failed)"])) == "undecided"


def test_other_weights_are_told_apart_and_show_nothing_of_the_rule():
    rng = np.random.default_rng(9)
    made = arm("replica", "baseline", 0.7, rng, ["baseline"], seeds=2, role="replica")
    findings = flawless(0.5, seeds=2)
    findings = replace(findings, arms=[*findings.arms, made])
    assert word(findings) == "lower on these weights"
    assert word(findings, "replica") == "lower on these weights"


# --- references ---------------------------------------------------------------------


def test_an_arm_is_held_against_the_arm_that_it_names():
    rng = np.random.default_rng(9)
    made = arm("next", "treated", 0.5, rng, ["treated"], matches=[matched()])
    carried = HARDER.arm("m", "treated").cells["transfer"]
    sources = dict(carried.sources) | {"next": carried.delta[..., -1]}
    findings = edited(HARDER, "treated", "transfer", sources=sources)
    findings = replace(findings, arms=[*findings.arms, made])
    assert word(findings, "next") == "equivalent"
    assert word(changed(findings, "next", reference="baseline"), "next") != "equivalent"


@pytest.mark.parametrize(("apart", "equal"), [(0.0499, True), (0.0501, False)])
@pytest.mark.parametrize("sign", [1, -1])
def test_clean_losses_have_to_be_equal_within_a_twentieth(apart, equal, sign):
    match = matched(apart=sign * apart)
    found = decided(changed(HARDER, "treated", matches=[match]))
    assert (found.word == "harder to attack") is equal


def test_a_difference_that_a_match_explains_is_none():
    match = HARDER.arm("m", "treated-matched")
    cells = {x: replace(y, delta=0.5 * y.delta) for x, y in match.cells.items()}
    findings = changed(HARDER, "treated-matched", cells=cells)
    assert word(findings) == "undecided"
    # Another match, that is not equal, says nothing.
    other = matched(apart=0.5)
    assert word(changed(findings, "treated", matches=[other])) == "undecided"


@pytest.mark.parametrize(("harm", "agrees"), [(1.0, True), (0.5, False)])
def test_each_of_several_matches_has_to_agree(harm, agrees):
    first = HARDER.arm("m", "treated-matched")
    cells = {x: replace(y, delta=harm * y.delta) for x, y in first.cells.items()}
    second = replace(first, label="treated-earlier", cells=cells)
    matches = [matched(), matched("treated-earlier")]
    findings = replace(HARDER, arms=[*HARDER.arms, second])
    found = decided(changed(findings, "treated", matches=matches))
    assert (found.word == "harder to attack") is agrees


def test_a_match_stands_for_the_arm_where_it_was_made_from_it():
    match = replace(matched(), stands_for="arm")
    findings = changed(HARDER, "treated", matches=[match])
    assert word(findings) == "undecided"  # it does the baseline arm's harm
    cells = findings.arm("m", "treated-matched").cells
    halved = {x: replace(y, delta=0.5 * y.delta) for x, y in cells.items()}
    assert word(changed(findings, "treated-matched", cells=halved)) == (
        "harder to attack"
    )


@pytest.mark.parametrize(("off", "said"), [(-1e-9, True), (0.0, True), (1e-9, False)])
def test_the_detection_limit_is_held_against_the_difference(off, said):
    limit = off + abs(Cases(HARDER).judged[1].contrast.shown.mean[0])
    found = changed(HARDER, "treated", plants=simulated.plants((limit,)))
    assert (word(found) == "harder to attack") is said


def test_weaker_attacks_may_fail_and_the_strongest_may_not():
    weak = edited(HARDER, "treated", "query", checkpoints=False)
    assert word(weak) == "harder to attack"
    strong = edited(HARDER, "treated", "flip", checkpoints=False)
    assert word(strong) == "undecided"


@pytest.mark.parametrize(("harm", "said"), [(1.4, "undecided"), (0.3, None)])
@pytest.mark.parametrize(
    ("side", "subject"), [("harder", "treated"), ("easier", "baseline")]
)
def test_what_is_strongest_on_one_arm_alone_forbids_a_direction(
    side, subject, harm, said
):
    findings = {"harder": HARDER, "easier": EASIER}[side]
    alone = {"alone": Attack("alone")}
    cells = dict(findings.arm("m", subject).cells)
    cells["alone"] = replace(cells["flip"], delta=cells["flip"].delta * 0 + harm)
    findings = changed(findings, subject, cells=cells)
    found = decided(replace(findings, attacks=findings.attacks | alone))
    assert found.word == (said or f"{side} to attack")
    assert ("convergence" in found.decided_by) is bool(said)


def test_a_search_without_gradients_has_to_be_run_on_both_arms():
    findings = gradients_alone(HARDER, None)
    cells = dict(findings.arm("m", "treated").cells)
    cells["alone"] = replace(cells["flip"], delta=cells["flip"].delta * 0 + 0.3)
    findings = changed(findings, "treated", cells=cells)
    alone = {"alone": Attack("alone")}
    assert word(replace(findings, attacks=findings.attacks | alone)) == "undecided"


@pytest.mark.parametrize(("lost", "said"), [(2, "pass"), (3, "not_applicable")])
@pytest.mark.parametrize("label", ["treated", "baseline"])
def test_what_was_carried_may_be_lost_on_one_row_of_a_hundred(label, lost, said):
    """Of 200; of seeds that the source lacks or that are not there, none count."""
    findings = flawless(0.5, seeds=6, n=50)
    (source,) = {"treated", "baseline"} - {label}
    other = findings.arm("m", source)
    cells = {
        x: replace(
            cell,
            delta=cell.delta[1:],
            there=cell.there[1:],
            sources={y: rows[1:] for y, rows in cell.sources.items()},
        )
        for x, cell in other.cells.items()
    }
    findings = changed(
        findings, source, cells=cells, seeds=other.seeds[1:], clean=other.clean[1:]
    )
    cell = findings.arm("m", label).cells["transfer"]
    rows, there = cell.sources[source].copy(), np.array([True] * 5 + [False])
    rows[[0, 5]] = np.nan
    rows[1, :lost] = np.nan
    findings = edited(findings, label, "transfer", sources={source: rows}, there=there)
    case = Cases(findings).judged[1]
    (carried,) = [x for x in case.masking if x.id == "transfer"]
    assert carried.status() == said


def test_a_sign_of_masking_on_the_reference_arm_forbids_easier():
    hidden = measured(EASIER, "baseline", "gradient_health", 0.5)
    found = decided(hidden)
    assert (found.word, found.decided_by) == ("undecided", ["gradient_health"])


def test_few_searches_for_all_examples_leave_what_was_carried_answered():
    findings = flawless(0.5, seeds=1)
    attacks = findings.attacks | {"uat": Attack("uat", universal=True)}
    for label in ("baseline", "treated"):
        own = findings.arm("m", label)
        cells = dict(own.cells) | {"uat": own.cells["query"]}
        findings = changed(findings, label, cells=cells)
    case = Cases(replace(findings, attacks=attacks)).judged[1]
    (carried,) = [x for x in case.masking if x.id == "transfer"]
    assert carried.status() == "pass"
