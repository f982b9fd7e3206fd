"""Claims of a suite are answered from its run: what is shown, and what may be said."""

import hashlib

import pytest

from harness.records import Bound
from harness.running import RunFolder, survey
from harness.verdicts import Results, answer_claims, findings_of, judge
from tests.run_fixtures import Story, deltas, edit, read_all, sample_row

pytestmark = pytest.mark.xdist_group("claims")  # each story is answered once
ATTACKS = ("hotflip", "random")
PERPLEXITY = "metric: perplexity.token_perplexity"


def answers(run, threshold=0.15):
    """Return the answers to a run's claims, by group and label."""
    results = Results(survey(run, (), trust=True), threshold)
    findings = findings_of(results)
    found = answer_claims(results, findings, judge(findings))
    return {f"{x.group}.{x.label}": x for x in found}


def stated(*groups):
    """Return groups of claims about one arm, numbered, as lines of a suite."""
    lines = ["claims:"]
    for i, claims in enumerate(groups):
        lines.append(f"  g{i}:")
        lines += [f"    c{j}: {{{x}, arm: monotone}}" for j, x in enumerate(claims)]
    return "\n".join(lines)


STORIES = {
    "usual": {},
    "strong": {"delta_loss": deltas(0.6, 0.2, 0.1, 0.05), "seeds": [1, 2, 3, 4, 5]},
    "beaten": {"delta_loss": deltas(0.2, 0.6, 0.1, 0.4)},
    "no control": {"absent": ("baseline.s1.random", "baseline.s2.ran", "s3.random")},
    "untrained": {"tokens": {"monotone": 5}},
    "broken": {"clean_loss": {"baseline": 2.4, "monotone": 6.0}},
    "saturated": {"delta_loss": deltas(9, 8, 4, 3)},
    "no success": {"delta_loss": deltas(0.6, -9, 0.6, -9)},
    "errors": {"errors": 1},
    "holes": {"failed": ("monotone.s2.hotflip",), "absent": ("monotone.s1-",)},
    "few": {"documents": 19, "more": "limit: 19"},
    "uneven": {"documents": 21},
    "one seed": {"seeds": [1]},
    "two seeds": {"seeds": [1, 2]},
}
ANSWERED = [
    ("usual", "attack: hotflip, dL: < 0", "supported"),
    ("usual", "attack: hotflip, dL: '> 0'", "refuted"),
    ("usual", "attack: hotflip, dL: < -0.12", "undecided"),
    ("usual", "attack: hotflip, dL: within 0.3", "supported"),
    ("usual", f"{PERPLEXITY}, change: <= 50 %", "supported"),
    ("usual", f"{PERPLEXITY}, change: < -20 %", "refuted"),
    ("usual", f"{PERPLEXITY}, change: within 12 %", "undecided"),
    ("usual", "metric: perplexity.loss, gap: within 0.5", "supported"),
    ("usual", "metric: perplexity.loss, gap: '>= 0.4'", "refuted"),
    ("strong", "attack: hotflip, dL: within 0.01", "refuted"),
    ("strong", "attack: hotflip, success: reduced by 20 %", "supported"),
    ("strong", "attack: hotflip, success: reduced by 80 %", "refuted"),
    ("strong", "attack: hotflip, success: reduced by 50 %", "undecided"),
    ("strong", "attack: hotflip, dL: < 0, seeds: every", "supported"),
    ("strong", "attack: hotflip, dL: '> 0', seeds: every", "refuted"),
    ("strong", "attack: random, dL: < 0", "supported"),
]
INVALID = "attack invalid: nothing shows that hotflip works on baseline: "
REASONS = [
    (
        "beaten",
        "attack: hotflip, dL: < 0",
        "refused",
        INVALID + "it is not shown to do more harm than random",
    ),
    (
        "no control",
        "attack: hotflip, dL: < 0",
        "refused",
        INVALID + "random is not complete on baseline",
    ),
    (
        "untrained",
        PERPLEXITY + ", change: < 90 %",
        "refused",
        "monotone and baseline were trained on other amounts, or on another order, of "
        "data",
    ),
    (
        "broken",
        "attack: hotflip, dL: < 0",
        "refused",
        "monotone is called broken: its loss without an attack, ",
    ),
    (
        "saturated",
        "attack: hotflip, success: reduced by 5 %",
        "undecided",
        "success is saturated on both arms (100 % and 100 %): see dL",
    ),
    (
        "no success",
        "attack: random, success: reduced by 5 %",
        "undecided",
        "the attack never succeeds on the other arm: there is nothing to reduce",
    ),
    (
        "errors",
        "attack: random, dL: < 9",
        "undecided",
        "2.5 % of rows ended in an error: above 1 % nothing is said",
    ),
    (
        "holes",
        "attack: hotflip, dL: < 0",
        "undecided",
        "incomplete: Pythia_1.4B.monotone.s2.hotflip-",
    ),
    (
        "holes",
        PERPLEXITY + ", change: < 90 %",
        "undecided",
        "incomplete: Pythia_1.4B.monotone.s1-",
    ),
    ("few", PERPLEXITY + ", change: < 90 %", "undecided", "19 rows are fewer than 20"),
    ("few", "attack: random, dL: < 9", "undecided", "19 documents are fewer than 20"),
    (
        "uneven",
        PERPLEXITY + ", change: < 90 %",
        "undecided",
        "21 rows of unequal size tell no more than 19 equal ones: fewer than 20",
    ),
]
SCOPES = [
    ("one seed", "attack: hotflip, dL: < 0", "weights"),
    ("two seeds", "attack: hotflip, dL: < 0", "weights"),
    ("usual", "attack: hotflip, dL: < 0", "treatment"),
    ("strong", "attack: hotflip, dL: < 0, seeds: every", "weights"),
]
LONE = "attack: hotflip, dL: < -0.12"
ASKED = [case[:2] for case in (*ANSWERED, *REASONS, *SCOPES)] + [("one seed", LONE)]


@pytest.fixture(scope="module")
def answer(written_runs):
    """Return a function that gives the answer to a claim, alone in its group."""
    known = {}

    def answer(name, claim):
        claims = [*dict.fromkeys(x for story, x in ASKED if story == name)]
        if name not in known:
            told = {"seeds": [1, 2, 3], "documents": 30, "more": ""} | STORIES[name]
            told["more"] += "\n" + stated(*([x] for x in claims))
            known[name] = answers(written_runs(Story(**told)))
        return known[name][f"g{claims.index(claim)}.c0"]

    return answer


@pytest.mark.parametrize(("story", "claim", "wanted"), ANSWERED)
def test_a_claim_is_answered_by_its_interval(answer, story, claim, wanted):
    found = answer(story, claim)
    bound, (low, high) = Bound.of(found.claim.bound), found.estimate.interval
    within = bound.low <= low and high <= bound.high
    outside = low > bound.high or high < bound.low
    shown = "supported" if within else "refuted" if outside else "undecided"
    assert (found.answer, found.exploratory) == (wanted, False) == (shown, False)
    assert (found.needed is None) is (wanted != "undecided")
    assert (found.reasons == []) is (wanted != "undecided")


@pytest.mark.parametrize(("story", "claim", "wanted", "reason"), REASONS)
def test_what_stands_in_the_way_is_said(answer, story, claim, wanted, reason):
    found = answer(story, claim)
    assert found.answer == wanted
    assert found.reasons[0].startswith(reason)
    assert (found.p_supported, found.p_refuted) == (None, None)
    if wanted == "refused":
        assert (found.estimate, found.sides) == (None, None)


@pytest.mark.parametrize(("story", "claim", "scope"), SCOPES)
def test_few_seeds_and_each_seed_alone_speak_of_weights(answer, story, claim, scope):
    found = answer(story, claim)
    assert (found.answer, found.scope) == ("supported", scope)
    assert found.seeds == len(STORIES[story].get("seeds", [1, 2, 3]))


def test_what_would_decide_is_said(answer):
    found = answer("usual", LONE)
    assert found.needed.documents >= 40
    assert found.needed.seeds >= 3
    design = f"{found.needed.documents} documents x {found.needed.seeds} seeds"
    assert f"{design} would decide" in found.reasons[-1]


def test_a_single_seed_does_not_tell_what_would_decide(answer):
    found = answer("one seed", LONE)
    assert found.needed is None
    assert "train three at least" in found.reasons[-1]


def test_identical_arms_show_nothing_that_they_do_not_have(make_run):
    claims = (
        "attack: hotflip, dL: < 0",
        "attack: hotflip, success: reduced by 10 %",
        "attack: hotflip, dL: within 0.1",
    )
    same = {"delta_loss": deltas(0.6, 0.4, 0.6, 0.4)}
    run = make_run(more=stated(claims), seeds=[1, 2, 3, 4, 5], **same)
    found = answers(run)
    assert [x.answer for x in found.values()] == ["undecided", "undecided", "supported"]


def test_claims_of_a_group_share_a_level(make_run):
    """Holm: beside three that show nothing, a p is four times as large."""
    claim = "attack: hotflip, dL: < -0.055"
    others = ["metric: perplexity.loss, gap: < -9"] * 3
    run = make_run(
        seeds=[1, 2, 3], documents=30, more=stated([claim], [claim, *others])
    )
    found = answers(run)
    alone, together = found["g0.c0"], found["g1.c0"]
    assert together.p_supported == pytest.approx(4 * alone.p_supported)
    assert alone.p_supported <= 0.025 < together.p_supported
    assert (alone.answer, together.answer) == ("supported", "undecided")
    assert together.reasons[0] == (
        "its interval is within the bound, but not after Holm's correction for the 4 "
        "claims of the group"
    )


def test_claims_that_records_state_otherwise_are_exploratory(make_run):
    run = make_run(more=stated(["attack: hotflip, dL: < 0"]))
    record = RunFolder(run).records("cell")[0]
    edit(record, "claims", "g0", "c0", "bound", value="< 0.5")
    (found,) = answers(run).values()
    assert found.exploratory
    assert found.reasons == ["exploratory: claims changed after 1 record"]


def test_the_threshold_of_a_claim_is_that_of_the_suite(make_run):
    run = make_run(
        more=stated(["attack: hotflip, success: reduced by 5 %"]), seeds=[1, 2, 3]
    )
    assert {x.claims["g0"]["c0"].threshold for x in read_all(run)} == {0.15}
    first, second = (answers(run, x)["g0.c0"] for x in (0.15, 2.0))
    assert first == second


def test_other_options_of_an_attack_are_another_budget(make_run):
    run = make_run(more=stated(["attack: hotflip, dL: < 0"]), seeds=[1, 2, 3])
    folder = RunFolder(run)
    record = next(x for x in folder.records("cell") if "monotone.s1.hotflip" in str(x))
    edit(record, "attack", "share", value=1.0)
    (found,) = answers(run).values()
    assert found.answer == "refused"
    assert found.reasons[-1] == (
        "hotflip had other options or another budget on one of the arms"
    )


def test_a_budget_that_one_arm_did_not_spend_is_unequal(make_run):
    run = make_run(more=stated(["attack: hotflip, dL: < 0"]), seeds=[1, 2, 3])
    for record in RunFolder(run).records("cell"):
        if "monotone" in str(record) and "hotflip" in str(record):
            edit(record, "ledger", "kept", "attack", "flops", value=1e13)
    (found,) = answers(run).values()
    assert found.answer == "refused"
    assert "FLOPs per example on monotone" in found.reasons[-1]


def test_exchanging_arms_does_not_save_one_that_is_broken(make_run):
    claim = "{attack: hotflip, arm: baseline, against: monotone, dL: < 9}"
    run = make_run(
        more=f"claims: {{g: {{c: {claim}}}}}",
        seeds=[1, 2, 3],
        clean_loss={"baseline": 2.4, "monotone": 6.0},
        delta_loss=deltas(0.6, 0.4, 0.9, 0.4),
    )
    (found,) = answers(run).values()
    assert found.answer == "refused"
    assert found.reasons[0].startswith("monotone is called broken: ")


@pytest.mark.parametrize("side", ["monotone", "baseline"])
def test_rows_that_a_fresh_process_does_not_find_decide_nothing(make_run, side):
    claims = ["attack: hotflip, dL: < 9", "attack: random, dL: < 9"]
    run = make_run(more=stated(claims), seeds=[1, 2, 3])
    (cell,) = (x.id for x in read_all(run) if f"{side}.s2.hotflip" in x.id)
    edit(run / "replay.json", cell, "largest", value=0.5)
    own, another = answers(run).values()
    reason = f"replay fails on {side}: {cell}: replayed losses are 0.5 nats/token off"
    assert (own.answer, own.reasons) == ("undecided", [reason])
    assert another.answer == "supported"


def test_an_arm_whose_losses_are_not_deterministic_decides_nothing(make_run):
    run = make_run(more=stated(["attack: hotflip, dL: < 9"]), seeds=[1, 2, 3])
    for record in RunFolder(run).records("variant"):
        if "monotone" in str(record):
            edit(record, "diagnostics", 0, "status", value="fail")
    (found,) = answers(run).values()
    assert found.answer == "undecided"
    assert found.reasons == ["determinism fails on monotone: it failed"]


def test_a_row_in_error_does_not_hide_an_unequal_budget(make_run):
    run = make_run(more=stated(["attack: hotflip, dL: < 0"]), seeds=[1, 2, 3])
    for record in RunFolder(run).records("cell"):
        if "monotone" in str(record) and "hotflip" in str(record):
            edit(record, "ledger", "kept", "attack", "flops", value=1e13)
            samples = record.parent / "samples.jsonl"
    lines = samples.read_text().splitlines()
    lines[0] = sample_row(0, 2.4, 0.0, error=True).model_dump_json()
    samples.write_text("".join(f"{x}\n" for x in lines))
    digest = hashlib.sha256(samples.read_bytes()).hexdigest()
    edit(samples.parent / "record.json", "samples", "sha256", value=digest)
    (found,) = answers(run).values()
    assert found.answer == "refused"
    assert "FLOPs per example on monotone" in found.reasons[-1]


def test_seeds_alone_are_told_from_the_claims_of_the_group(make_run):
    """A worst seed beyond the bound, and not after its correction for all of them."""
    claim = "attack: hotflip, dL: '> EDGE', seeds: every"
    run = make_run(more=stated([claim.replace("EDGE", "-9")]), seeds=[1, 2, 3])
    low, high = answers(run)["g0.c0"].estimate.interval
    edge = high + (high - low) / 50
    more = stated([claim.replace("EDGE", f"{edge:.6f}")])
    run = make_run("edge", more=more, seeds=[1, 2, 3])
    found = answers(run)["g0.c0"]
    assert found.estimate.interval == (low, high)
    assert (found.answer, found.reasons[0]) == (
        "undecided",
        "its interval is outside the bound, but not after the correction for 3 seeds",
    )


def test_a_percentage_is_no_bound_of_a_gap_of_fractions(make_run):
    """Any two arms would differ by less than 3."""
    run = make_run(more=stated(["metric: perplexity.loss, gap: '>= -3'"]))
    for record in RunFolder(run).records("variant"):
        edit(record, "results", "perplexity", "loss", "unit", value="fraction")
    (found,) = answers(run).values()
    reason = "no two fractions differ by 3: 3 % is 0.03"
    assert (found.answer, found.reasons) == ("refused", [reason])


@pytest.mark.parametrize("sides", ["arm: p", "arm: monotone, against: p"])
def test_a_planted_copy_is_no_arm_to_compare(make_run, sides):
    planted = "{constraint: planted, derive_from: baseline, kind: token, strength: 1}"
    run = make_run(
        arms=f"  p: {planted}",
        more=f"claims: {{g: {{c: {{attack: hotflip, {sides}, dL: < 9}}}}}}",
        clean_loss={"baseline": 2.4, "monotone": 2.5, "p": 2.4},
        delta_loss=deltas(0.6, 0.4, 0.45, 0.3) | {("p", x): 0.5 for x in ATTACKS},
    )
    (found,) = answers(run).values()
    reason = "a copy with a planted weakness is no arm to compare"
    assert (found.answer, found.reasons) == ("undecided", [reason])


def test_few_examples_decide_nothing_where_rows_do_not_pair_either(make_run):
    claim = "metric: perplexity.loss, gap: within 9"
    run = make_run(more=stated([claim]), seeds=[1, 2, 3], documents=19)
    for record in RunFolder(run).records("variant"):  # of other rows than there are
        edit(record, "results", "perplexity", "loss", "value", value=2.0)
    (found,) = answers(run).values()
    reason = "the metric rests on 19 documents or task examples: fewer than 20"
    assert (found.answer, found.reasons) == ("undecided", [reason])
