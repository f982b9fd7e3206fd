"""Arms, attacks and cells of a run, by its records."""

from types import SimpleNamespace

import pytest

from harness.base import RecordError
from harness.running.surveying import survey
from harness.verdicts.pairing import worst_rows
from harness.verdicts.results import AttackedCell, Results, mean_flops, paired
from tests.run_fixtures import edit, read_all, sample_row

MODEL = "Pythia_1.4B"
DERIVED = "  early: {constraint: noise, derive_from: baseline, match_loss_of: zebra}"
ARMS = (
    f"{DERIVED}\n  zebra: {{constraint: softplus}}\n  adder: {{constraint: softplus}}"
)
KNOWN = ("baseline", "monotone", "early", "zebra", "adder")
TOLD = {
    "arms": ARMS,
    "clean_loss": dict.fromkeys(KNOWN, 2.5),
    "delta_loss": {(x, y): 0.5 for x in KNOWN for y in ("hotflip", "random")},
    "absent": ("zebra.s2.hotflip", "adder.s1.random"),
    "failed": ("adder.s2.hotflip", "zebra.s1.random", "zebra.s2.random"),
}


@pytest.fixture
def results(make_run):
    return Results(survey(make_run(**TOLD)), 0.15)


def test_arms_stand_in_the_suites_order_but_for_the_baseline_and_what_is_derived(
    results,
):
    assert [arm.label for arm in results.arms] == [
        "baseline",
        "monotone",
        "zebra",
        "adder",
        "early",
    ]
    assert [arm.label for arm in results.treatments] == [
        "baseline",
        "monotone",
        "zebra",
        "adder",
    ]
    early = results.arm(MODEL, "early")
    assert (early.model, early.label, early.source) == (MODEL, "early", "baseline")
    assert (early.is_baseline, early.baseline.is_baseline) == (False, True)
    assert early.name == "Pythia_1.4B (early)"
    assert "results=" not in repr(early)
    assert results.controls == [("hotflip", "random")]
    assert early.attacks == ["hotflip"]


@pytest.mark.parametrize(
    "row",
    [
        *(b'{"metric": "perplexity', b'{"metric": "perplexity"}', b"{}", b"[1]"),
        *(b"\xff", lambda row: row.replace(b'"nats": ', b'"nats": "many", "x": ')),
    ],
)
def test_a_line_that_is_no_row_of_a_metric_is_named(make_run, row):
    found = Results(survey(make_run(seeds=[1])), 0.15)
    record = found.arm(MODEL, "baseline").variants[1]
    folder = found.survey.folder.unit_dir("variant", record.id)
    lines = (folder / "samples.jsonl").read_bytes().splitlines()
    lines.insert(2, row(lines[0]) if callable(row) else row)
    (folder / "samples.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(RecordError, match=r"samples\.jsonl:3: is no row of a metric"):
        found.terms(record)


def test_only_complete_units_are_there_and_others_say_what_they_are(results):
    zebra, adder = (results.arm(MODEL, x) for x in ("zebra", "adder"))
    assert (list(zebra.variants), list(zebra.cells("hotflip"))) == ([1, 2], [1])
    assert list(adder.cells("hotflip")) == [1]
    assert zebra.cells("random") == {}
    assert (zebra.absence("hotflip"), zebra.absence("random")) == ("missing", "failed")
    assert adder.absence("hotflip") == "failed"
    assert zebra.absence() == "missing"  # if it were asked: all of it is there
    assert zebra.absence("nothing") == "not planned"
    assert {x.kind for x in results.records[:10]} == {"variant"}
    assert len(results.records) == 10 + 20 - 5


def test_several_states_are_named_in_order(make_run):
    failed, absent = ("monotone.s1.random",), ("monotone.s2.random",)
    found = Results(survey(make_run(failed=failed, absent=absent)), 0.15)
    assert found.arm(MODEL, "monotone").absence("random") == "failed, missing"


def test_an_attack_and_a_role_are_what_records_say_they_were(make_run):
    run = make_run(arms="  bare: {constraint: softplus}", absent=("bare", "random"))
    for record in read_all(run):
        path = survey(run).folder.record_path(record.kind, record.id)
        if record.kind == "cell":
            edit(path, "attack", "share", value=2.0)
        elif record.arm.label == "monotone":
            edit(path, "arm", "role", value="plant")
    results = Results(survey(run), 0.15)
    assert [results.share(x) for x in ("hotflip", "random")] == [2.0, 1.0]
    assert results.attack("hotflip").label == "hotflip"
    assert results.attack("random") is results.experiment.attacks["random"]
    roles = [results.arm(MODEL, x).role for x in ("monotone", "bare")]
    assert roles == ["plant", results.experiment.arms["bare"].role]


def test_rows_are_read_once(results):
    monotone = results.arm(MODEL, "monotone")
    assert monotone.cells("hotflip")[1] is monotone.cells("hotflip")[1]
    assert len(monotone.cells("hotflip")[1].rows) == 40


def test_the_worst_is_taken_under_seeds_that_have_all(results):
    monotone, zebra = (results.arm(MODEL, x) for x in ("monotone", "zebra"))
    assert monotone.worst([]) == {}
    assert zebra.worst(["hotflip", "random"]) == {}
    assert list(zebra.worst(["hotflip"])) == [1]
    cells = [monotone.cells(x) for x in ("hotflip", "random")]
    found = monotone.worst(["hotflip", "random"])
    assert {seed: cell.rows for seed, cell in found.items()} == {
        seed: worst_rows([one[seed].rows for one in cells]) for seed in (1, 2)
    }


def test_what_cannot_be_paired_says_why(make_run):
    absent = ("monotone.s1.hotflip", "baseline.s2.hotflip", "other.s1", "other.s2.rand")
    told = {
        "arms": "  other: {constraint: softplus}",
        "clean_loss": dict.fromkeys(("baseline", "monotone", "other"), 2.5),
        "delta_loss": {
            (x, y): 0.5
            for x in ("baseline", "monotone", "other")
            for y in ("hotflip", "random")
        },
    }
    results = Results(survey(make_run(**told, absent=absent)), 0.15)
    base, monotone, other = (
        results.arm(MODEL, x) for x in ("baseline", "monotone", "other")
    )
    apart = paired({"a": (monotone, "hotflip"), "b": (base, "hotflip")})
    assert apart == "no seed in common"
    lacking = {"a": (monotone, "hotflip"), "b": (other, "random")}
    assert paired(lacking) == "b missing"
    pairing = monotone.pairing("hotflip", "random")
    assert (set(pairing.seeds), len(pairing.first)) == ({2}, 40)
    failed = Results(survey(make_run("failed", errors=40)), 0.15).arm(MODEL, "monotone")
    assert failed.pairing("hotflip", "random") == "every pair has an error"


def cost(flops):
    return {"attack": SimpleNamespace(compared_flops=flops)}


@pytest.mark.parametrize(
    ("searches", "divided"), [([], 1), ([0, 0], 2), ([0, 2, 1], 9)]
)
def test_flops_are_those_of_one_search_on_an_example(searches, divided):
    rows = [
        sample_row(i, 2.0, 0.5).model_copy(update={"replicates": [None] * count})
        for i, count in enumerate(searches)
    ]
    ledger = SimpleNamespace(kept=cost(90.0), spent=cost(180.0))
    cell = AttackedCell(rows, SimpleNamespace(ledger=ledger))
    assert cell.flops_per_example() == pytest.approx(90 / divided)
    assert cell.flops_per_example(spent=True) == pytest.approx(180 / divided)
    assert mean_flops({1: cell, 2: cell}) == pytest.approx(90 / divided)
    assert mean_flops({1: cell}, spent=True) == pytest.approx(180 / divided)


def test_rows_are_kept_without_what_is_only_shown(make_run):
    results = Results(survey(make_run(full=True, seeds=[1])), 0.15)
    record = next(x for x in results.records if x.kind == "cell")
    bare, full = results.cell(record).rows[-1], results.samples(record)[-1]
    assert (bare.trace, bare.clean_text, bare.clean_token_losses) == ([], None, None)
    assert all((full.trace, full.clean_text, full.clean_token_losses))
    kept = ("example_id", "clean_loss", "delta_loss", "checkpoints", "clean_prompt_ids")
    assert all(getattr(bare, name) == getattr(full, name) for name in kept)
