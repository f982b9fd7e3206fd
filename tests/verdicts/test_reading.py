"""From run folders to findings: what records and rows mean to the rule."""

import hashlib
import json

import numpy as np
import pytest

from harness.data import content_key
from harness.records.samples import read_samples
from harness.run.folder import RunFolder
from harness.run.surveying import survey
from harness.verdicts.judging import judge
from harness.verdicts.reading import findings_of
from harness.verdicts.results import Results
from tests.run_fixtures import edit, editing, read_all

MODEL = "Pythia_1.4B"
MATCH = "{constraint: noise, derive_from: baseline, match_loss_of: monotone}"
MATCHED = {
    "arms": f"  monotone-matched: {MATCH}",
    "clean_loss": {"baseline": 2.4, "monotone": 2.5, "monotone-matched": 2.5},
    "delta_loss": {
        (arm, attack): 0.5
        for arm in ("baseline", "monotone", "monotone-matched")
        for attack in ("hotflip", "random")
    },
}


def read(run):
    return findings_of(Results(survey(run), 0.15))


def samples(run, arm, attack, seed):
    (record,) = [
        x
        for x in read_all(run)
        if x.kind == "cell"
        and (x.arm.label, x.attack.label, x.seed) == (arm, attack, seed)
    ]
    return RunFolder(run).unit_dir("cell", record.id) / "samples.jsonl"


def variants(run, arm):
    return [
        (RunFolder(run).record_path("variant", x.id), x.seed)
        for x in read_all(run)
        if x.kind == "variant" and x.arm.label == arm
    ]


def test_rows_become_tables_by_seed_and_example(make_run):
    run = make_run(errors=2)
    found = read(run)
    arm = found.arm(MODEL, "monotone")
    assert (arm.reference, arm.seeds, arm.role) == ("baseline", (1, 2), "treatment")
    assert found.arm(MODEL, "baseline").reference is None
    for attack in ("hotflip", "random"):
        cell = arm.cells[attack]
        assert cell.delta.shape == (2, 40, 4)
        for index, seed in enumerate(arm.seeds):
            rows = read_samples(samples(run, "monotone", attack, seed))
            own = np.array([x.delta_loss for x in rows], dtype=float)
            assert np.isnan(own).sum() == 2
            for share in range(4):  # nothing was kept: its own prompt stands for all
                assert cell.delta[index, :, share] == pytest.approx(own, nan_ok=True)
        assert not cell.checkpoints
        assert cell.there.tolist() == [True, True]
        assert cell.flops == pytest.approx([4.1e13 / 40] * 4)
    assert found.models[MODEL].units == [str(i) for i in range(40)]
    roles = {x: (y.role, y.of, y.shows) for x, y in found.attacks.items()}
    assert roles == {
        "hotflip": ("main", None, None),
        "random": ("control", "hotflip", "search"),
    }
    assert found.attacks["hotflip"].gradients
    assert not found.attacks["random"].universal
    assert str(found.margin) == "10 %"
    assert found.margin_change is None


@pytest.mark.parametrize("universal", [True, False])
def test_what_replays_a_search_for_all_examples_is_as_universal(
    make_run, monkeypatch, universal
):
    added = ("transfer", "worst", "unbounded", "permuted", "replica", "match", "plant")
    run = make_run(more="diagnostics: full", absent=added)
    hotflip = survey(run).plan.experiment.attacks["hotflip"]
    monkeypatch.setattr(type(hotflip), "universal", universal)
    attacks = read(run).attacks
    assert attacks["hotflip"].universal is universal
    carried = attacks["transfer"]
    assert (carried.role, carried.universal) == ("transfer", universal)


def kept(row, searches=0):
    """Give a row prompts of all budgets, and further searches."""
    prompt, clean = row["adversarial_prompt_ids"], row["clean_loss"]
    row["share"] = 2.0

    def found(factor, **more):
        delta = factor * row["delta_loss"]
        return {
            "adversarial_prompt_ids": prompt,
            "adversarial_loss": clean + delta,
            "delta_loss": delta,
            **more,
        }

    row["checkpoints"] = [found(x / 2, share=x) for x in (0.25, 0.5, 1.0)]
    row["replicates"] = [found(1.5) for _ in range(searches)]


def rewritten(run, place, change, keep=None):
    """Change all rows of a cell that it keeps, its record's hash included."""
    rows = [json.loads(line) for line in place.read_text().splitlines()[:keep]]
    for row in rows:
        change(row)
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    edit(place.parent / "record.json", "samples", "sha256", value=digest)


def test_smaller_budgets_and_further_searches_are_laid_beside(make_run):
    run = make_run()
    for seed in (1, 2):
        place = samples(run, "monotone", "hotflip", seed)
        rewritten(run, place, lambda row: kept(row, searches=2))
    cell = read(run).arm(MODEL, "monotone").cells["hotflip"]
    assert cell.checkpoints
    full = cell.delta[..., 3]
    for share, factor in enumerate((0.125, 0.25, 0.5, 1.0)):
        assert cell.delta[..., share] == pytest.approx(factor * full)
    assert cell.replicates == pytest.approx(np.repeat(1.5 * full[:, None], 2, axis=1))
    # The whole budget is twice the stated one, and one of three searches is compared.
    assert cell.flops == pytest.approx(4.1e13 / 40 / 3 * np.array([1, 2, 4, 8]) / 8)


def test_with_every_token_free_the_first_examples_are_all_that_there_is(make_run):
    free, arms = "hotflip-unbounded", ("baseline", "monotone")
    absent = ("transfer", "worst", "permuted", "replica", "match", "plant")
    means = {(x, y): 0.5 for x in arms for y in ("hotflip", "random", free)}
    run = make_run(more="diagnostics: full", absent=absent, delta_loss=means)
    arm = read(run).arm(MODEL, "monotone")
    rows = read_samples(samples(run, "monotone", free, 2))
    assert [row.example_id for row in rows] == [f"test/{i}" for i in range(32)]
    assert arm.cells[free].there.tolist() == [True, True]
    own = [row.delta_loss for row in rows]
    assert arm.cells[free].delta[1, :, 3] == pytest.approx(own)
    assert (arm.clean.shape, arm.cells["hotflip"].delta.shape) == ((2, 40), (2, 40, 4))
    assert not [x for x in arm.holes if free in x]
    rewritten(run, samples(run, "monotone", free, 2), lambda row: None, keep=31)
    assert read(run).arm(MODEL, "monotone").cells[free].there.tolist() == [True, False]


def test_clusters_are_units(make_run):
    run = make_run()

    def grouped(row):
        row["cluster"] = f"author {int(row['document_id']) // 2}"

    for arm in ("baseline", "monotone"):
        for attack in ("hotflip", "random"):
            for seed in (1, 2):
                rewritten(run, samples(run, arm, attack, seed), grouped)
    units = read(run).models[MODEL].units
    assert units == [f"author {i // 2}" for i in range(40)]


def test_cells_that_are_missing_leave_holes_and_no_rows(make_run):
    found = read(make_run(absent=("monotone.s2.hotflip",)))
    arm = found.arm(MODEL, "monotone")
    assert arm.cells["hotflip"].there.tolist() == [True, False]
    assert np.isnan(arm.cells["hotflip"].delta[1]).all()
    assert arm.cells["random"].there.tolist() == [True, True]
    (hole,) = arm.holes
    assert "monotone.s2.hotflip" in hole
    assert hole.endswith("(missing)")
    assert found.arm(MODEL, "baseline").holes == []
    # What the reference arm lacks, the arm lacks too.
    base = read(make_run("b", absent=("baseline.s1.random",)))
    assert [len(base.arm(MODEL, x).holes) for x in ("baseline", "monotone")] == [1, 1]


def test_old_records_leave_questions_open_and_break_nothing(make_run):
    found = judge(read(make_run()))
    (treated,) = [x for x in found.arms if x.arm == "monotone"]
    statuses = {x.id: x.status for x in treated.diagnostics}
    for name in ("gradient_truth", "convergence", "equal_clean_loss"):
        assert statuses[name] == "not_applicable"


def test_clean_losses_certificates_and_vocabularies_are_taken_over(make_run):
    run = make_run()
    found = read(run)
    arm = found.arm(MODEL, "monotone")
    rows = read_samples(samples(run, "monotone", "hotflip", 2))
    assert arm.clean[1] == pytest.approx([row.clean_loss for row in rows])
    assert [(x.failed, x.examined, x.expected) for x in arm.certificates] == [
        (False, 48, 48)
    ] * 2
    largest = max(max(row.clean_prompt_ids + row.reference_ids) for row in rows)
    assert found.models[MODEL].vocabulary == largest + 1
    (path, _), *_ = variants(run, "baseline")
    (path.parent / "model").mkdir()
    (path.parent / "model" / "config.json").write_text('{"vocab_size": 777}')
    assert read(run).models[MODEL].vocabulary == 777
    config = path.parent / "model" / "config.json"
    config.write_text('{"vision_config": {}, "text_config": {"vocab_size": 555}}')
    assert read(run).models[MODEL].vocabulary == 555
    config.write_text('{"decoder": null}')
    assert read(run).models[MODEL].vocabulary == largest + 1
    edit(variants(run, "monotone")[0][0], "certificate", "after", "examined", value=47)
    assert read(run).arm(MODEL, "monotone").certificates[0].examined == 47


def test_answers_of_examples_are_laid_side_by_side(make_run):
    run = make_run()
    for path, seed in variants(run, "monotone"):
        values = [
            {"example": f"test/{i}", "document": str(i), "at": "clean", "value": x}
            for i, x in enumerate([0.1 * seed, None])
        ]
        answer = {"id": "gradient_truth", "status": "pass", "value": 0.1, "n": 2}
        answer |= {"unit": "x", "measured": {"values": values}}
        bad = {"id": "determinism", "status": "fail" if seed == 2 else "pass"}
        bad |= {"value": 0.1, "n": 2, "unit": "x", "reason": "it drifts"}
        edit(path, "diagnostics", value=[answer, bad])
    examined = read(run).arm(MODEL, "monotone").examined
    found = examined["gradient_truth"]
    assert found.values == pytest.approx(
        np.array([[0.1, np.nan], [0.2, np.nan]]), nan_ok=True
    )
    assert (list(found.units), found.fault) == (["0", "1"], None)
    assert examined["determinism"].fault == "it drifts"
    assert "first_order_fidelity" not in examined


def derivation(measured, *, achieved=True):
    return {
        "achieved": achieved,
        "reason": None if achieved else "it would not",
        "results": {},
        "measured": measured,
    }


@pytest.mark.parametrize(
    ("noise_on", "stands_for"), [("source", "reference"), ("arm", "arm")]
)
def test_matches_are_read_with_the_documents_they_are_judged_by(
    make_run, noise_on, stands_for
):
    run = make_run(**MATCHED)
    for path, seed in variants(run, "monotone-matched"):
        documents = [
            {
                "document": str(i),
                "arm_loss": 3.0 + seed,
                "match_loss": 2.0 + i,
                **({"unit": f"author {i // 2}"} if i > 2 else {}),
            }
            for i in range(seed, 5)
        ]
        measured = {"noise_on": noise_on, "documents": documents}
        edit(path, "derivation", value=derivation(measured))
    found = read(run)
    assert found.arm(MODEL, "monotone-matched").role == "derived"
    (match,) = found.arm(MODEL, "monotone").matches
    assert (match.arm, match.stands_for) == ("monotone-matched", stands_for)
    # Those of both seeds; an older record says nothing of what documents share.
    assert list(match.units) == ["2", "author 1", "author 2"]
    assert match.arm_loss == pytest.approx(np.array([[4.0] * 3, [5.0] * 3]))
    assert match.match_loss == pytest.approx(np.array([[4.0, 5.0, 6.0]] * 2))


def test_a_match_that_failed_says_why(make_run):
    run = make_run(**MATCHED)
    for path, _ in variants(run, "monotone-matched"):
        edit(path, "derivation", value=derivation({}, achieved=False))
    arm = read(run).arm(MODEL, "monotone")
    assert list(arm.matches) == []
    assert arm.unmatched == "monotone-matched: it would not"


def test_replays_are_read_for_every_cell_that_a_verdict_rests_on(make_run):
    run = make_run()
    known = {x.cell: x for x in read(run).arm(MODEL, "monotone").replayed}
    assert len(known) == 8  # both arms, two attacks, two seeds
    assert {x.fault for x in known.values()} == {None}
    first = next(iter(known))
    with editing(run / "replay.json") as document:
        del document[first]
    again = {x.cell: x.fault for x in read(run).arm(MODEL, "monotone").replayed}
    assert again[first] == "it was not replayed"


def test_where_no_diagnostics_are_asked_nobody_misses_a_replay(make_run):
    run = make_run(more="diagnostics: none")
    (run / "replay.json").unlink()
    assert read(run).arm(MODEL, "monotone").replayed == []
    answers = {x.id: x for x in judge(read(run)).arms[1].diagnostics}
    assert answers["replay"].status == "not_applicable"


def test_a_verdict_rests_on_what_was_made_of_either_arm_and_of_no_other(make_run):
    treated = ("baseline", "monotone", "other")
    matches = {
        f"{x}-matched": f"{{{MATCH[1:-1].replace('monotone', x)}}}" for x in treated[1:]
    }
    plants = {
        f"{x}-planted-token-1": f"{{constraint: planted, derive_from: {x}, kind: token,"
        " strength: 1.0, seeds: [1], attacks: [hotflip]}"
        for x in treated
    }
    sections = {"other": "{constraint: softplus}"} | matches | plants
    known = (*treated, *matches, *plants)
    run = make_run(
        seeds=[1],
        arms="".join(f"  {label}: {x}\n" for label, x in sections.items()),
        clean_loss=dict.fromkeys(known, 2.5),
        delta_loss={(x, y): 0.5 for x in known for y in ("hotflip", "random")},
        absent=("matched.s1.hotflip", "monotone-planted-token-1.s1.hotflip"),
    )
    found = read(run).arm(MODEL, "monotone")

    def arms(units):
        return {x.removeprefix(f"{MODEL}.").split(".")[0] for x in units}

    assert arms(found.holes) == {"monotone-matched", "monotone-planted-token-1"}
    assert arms(x.cell for x in found.replayed) == {
        "baseline",
        "baseline-planted-token-1",
        "monotone",
        "monotone-matched",
    }


def test_margins_that_were_changed_are_told(make_run):
    run = make_run()
    path = RunFolder(run).record_path("variant", read_all(run)[0].id)
    edit(path, "margin", value={"relative": 0.2, "nats": None})
    change = read(run).margin_change
    assert change == "margin changed after 1 record, from 20 % to 10 %"


PLANT = "monotone-planted-token-1"
PLANTED = {
    "arms": f"""  {PLANT}:
    constraint: planted
    derive_from: monotone
    kind: token
    strength: 1.0
    seeds: [1]
    attacks: [hotflip]""",
    "clean_loss": {"baseline": 2.4, "monotone": 2.5, PLANT: 2.5},
    "delta_loss": {
        (arm, attack): 0.5
        for arm in ("baseline", "monotone", PLANT)
        for attack in ("hotflip", "random")
    },
}


def test_plants_are_read_with_what_attacks_reach_on_them(make_run):
    """Of all examples that were measured, those that were attacked."""
    run = make_run(**PLANTED)
    rows = read_samples(samples(run, PLANT, "hotflip", 1))
    keys = [content_key(x.clean_prompt_ids, x.reference_ids) for x in rows]
    measured = [
        {"example": key, "document": f"d{i}", "own": 0.1 * i or None, "planted": 9 - i}
        for i, key in enumerate([*keys, "not attacked"])
    ]
    ((path, _),) = variants(run, PLANT)
    about = {"kind": "token", "strength": 1.0, "examples": measured}
    edit(path, "derivation", value=derivation(about))
    arms = read(run)
    assert PLANT not in [arm.label for arm in arms.arms]
    (plant,) = arms.arm(MODEL, "monotone").plants
    assert (plant.kind, plant.strength) == ("token", 1.0)
    assert list(plant.units) == [f"d{i}" for i in range(40)]
    assert plant.own == pytest.approx([np.nan, *0.1 * np.arange(1, 40)], nan_ok=True)
    assert plant.planted == pytest.approx(9 - np.arange(40))
    assert plant.reached["hotflip"] == pytest.approx([x.delta_loss for x in rows])
    edit(path, "derivation", value=derivation(about, achieved=False))
    assert list(read(run).arm(MODEL, "monotone").plants) == []
