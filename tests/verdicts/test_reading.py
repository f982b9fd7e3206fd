"""From run folders to findings: what records and rows mean to the rule."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from harness.api import Budget
from harness.data import content_key
from harness.records.samples import read_samples
from harness.running.folder import RunFolder
from harness.running.surveying import survey
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
    gradients = {x: y.gradients for x, y in found.attacks.items()}
    assert gradients == {"hotflip": True, "random": False}
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
    edit(place.parent / "record.json", "samples", "rows", value=len(rows))


@pytest.mark.parametrize(
    ("forward", "backward", "replays", "role"),
    [
        (1, 0, False, "main"),
        (0, 1, False, "main"),
        (1, 1, False, "main"),
        (0, 0, False, "idle"),
        (1, 1, True, "idle"),
    ],
)
def test_what_searches_without_gradients_is_asked_nothing_about_them(
    make_run, monkeypatch, forward, backward, replays, role
):
    """And what searches nothing is no attack."""
    run = make_run()
    value = {"example": "test/0", "document": "0", "at": "attacked", "value": 0.1}
    for record in read_all(run):
        if record.kind == "cell" and record.attack.label == "hotflip":
            answer = {"id": "gradient_truth", "status": "pass", "value": 0.1, "n": 1}
            answer |= {"unit": "x", "measured": {"values": [value]}}
            path = RunFolder(run).record_path("cell", record.id)
            edit(path, "diagnostics", value=[answer])
            edit(path, "attack", "replays", value=replays)
    results = Results(survey(run), 0.15)
    plugin = type(results.experiment.attacks["hotflip"])

    def budget(self, examples):
        return Budget(forward=forward * examples, backward=backward * (examples == 1))

    monkeypatch.setattr(plugin, "budget", budget)
    found = findings_of(results)
    attack, arm = found.attacks["hotflip"], found.arm(MODEL, "monotone")
    assert (attack.role, attack.gradients) == (role, backward > 0)
    assert ("gradient_truth" in arm.examined) is (role == "main" and backward > 0)
    searching = ["hotflip"] if role == "main" else []
    assert results.arm(MODEL, "monotone").attacks == searching


def test_an_attack_that_no_limit_holds_cannot_be_freed_of_one(make_run, monkeypatch):
    run = make_run()
    assert read(run).attacks["hotflip"].limited
    plugin = type(survey(run).plan.experiment.attacks["hotflip"])
    monkeypatch.setattr(plugin, "unbounded", lambda self, tokens: None)
    assert not read(run).attacks["hotflip"].limited


def test_forms_of_an_attack_name_it(make_run):
    absent = ("transfer", "worst", "permuted", "replica", "match", "plant", "random")
    more = "diagnostics: full\nverdicts: {token_level: true}"
    forms = ("hotflip", "hotflip-unbounded", "hotflip-tokens")
    arms = ("baseline", "monotone")
    run = make_run(
        more=more, absent=absent, delta_loss={(x, y): 0.5 for x in arms for y in forms}
    )
    results = Results(survey(run), 0.15)
    attacks = findings_of(results).attacks
    roles = {x: (attacks[x].role, attacks[x].of) for x in forms}
    assert results.arm(MODEL, "monotone").attacks == ["hotflip"]
    assert roles == {
        "hotflip": ("main", None),
        "hotflip-unbounded": ("unbounded", "hotflip"),
        "hotflip-tokens": ("token-level", "hotflip"),
    }


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


def test_budgets_and_searches_are_those_that_every_row_has(make_run):
    run = make_run()
    place = samples(run, "monotone", "hotflip", 1)
    searches = iter([2, *[3] * 39])
    rewritten(run, place, lambda row: kept(row, searches=next(searches)))
    place = samples(run, "monotone", "hotflip", 2)
    rewritten(run, place, lambda row: kept(row, searches=4))
    cell = read(run).arm(MODEL, "monotone").cells["hotflip"]
    assert (cell.checkpoints, cell.replicates.shape) == (True, (2, 2, 40))
    rewritten(run, place, lambda row: row.update(share=1.0))
    assert not read(run).arm(MODEL, "monotone").cells["hotflip"].checkpoints


def test_a_cell_in_which_all_failed_has_no_budgets_and_no_searches(make_run):
    cell = read(make_run(errors=40)).arm(MODEL, "monotone").cells["hotflip"]
    assert np.isnan(cell.delta).all()
    assert (cell.checkpoints, cell.replicates) == (False, None)


def test_what_was_carried_from_an_arm_is_the_worst_of_it(make_run):
    run = make_run()
    steps = [
        {"source": "baseline", "attack": "hotflip", "delta_loss": 0.5},
        {"source": "baseline", "attack": "random", "delta_loss": 0.25},
        {"source": "other", "attack": "random", "delta_loss": None},
        {"source": None, "attack": "random", "delta_loss": 0.75},
        {"step": 1, "delta_loss": 9.0},
    ]

    def carried(row):
        row["trace"] = steps if int(row["document_id"]) % 2 else steps[1:]

    rewritten(run, samples(run, "monotone", "random", 2), carried)
    (source, found), *more = (
        read(run).arm(MODEL, "monotone").cells["random"].sources.items()
    )
    assert (source, more) == ("baseline", [])
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [0.25, 0.5] * 20


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
    for index, when in enumerate(("before", "after")):
        path = variants(run, "monotone")[index][0]
        edit(path, "certificate", when, "status", value="fail")
    assert [x.failed for x in read(run).arm(MODEL, "monotone").certificates] == [
        True
    ] * 2


def test_answers_of_examples_are_laid_side_by_side(make_run):
    run = make_run()
    for path, seed in variants(run, "monotone"):
        values = [
            {"example": f"test/{i}", "document": str(i), "at": "clean", "value": x}
            for i, x in enumerate([0.1 * seed, None])
        ]
        answer = {"id": "gradient_truth", "status": "pass", "value": 0.1, "n": 2}
        answer |= {"unit": "x", "measured": {"values": values}}
        bad = {"id": "determinism", "status": "fail", "reason": f"it drifts, {seed}"}
        bad |= {"value": 0.1, "n": 2, "unit": "x"}
        edit(path, "diagnostics", value=[answer, bad])
    examined = read(run).arm(MODEL, "monotone").examined
    found = examined["gradient_truth"]
    assert found.values == pytest.approx(
        np.array([[0.1, np.nan], [0.2, np.nan]]), nan_ok=True
    )
    assert (list(found.units), found.fault) == (["0", "1"], None)
    assert examined["determinism"].fault == "it drifts, 1"
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
        ][:: 1 if seed == 1 else -1]
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


def test_a_match_without_clean_losses_of_one_side_is_none(make_run):
    run = make_run(**MATCHED)
    unsaid = "monotone-matched has no clean losses of the same side under every seed"
    assert read(run).arm(MODEL, "monotone").unmatched == unsaid
    for path, seed in variants(run, "monotone-matched"):
        documents = [{"document": "1", "arm_loss": 3.0, "match_loss": 2.0}]
        measured = {"noise_on": ["arm", "source"][seed % 2], "documents": documents}
        edit(path, "derivation", value=derivation(measured))
    arm = read(run).arm(MODEL, "monotone")
    assert (list(arm.matches), arm.unmatched) == ([], unsaid)
    missing = make_run("missing", **MATCHED, absent=("monotone-matched",))
    arm = read(missing).arm(MODEL, "monotone")
    assert arm.unmatched == "monotone-matched is missing"


OTHER = f"""  Other:
    adapter: pythia
    path: EleutherAI/pythia-410m
    fingerprint: sha256:{"0" * 64}"""
ARMS = """  other: {constraint: softplus}
  other-matched: {constraint: noise, derive_from: baseline, match_loss_of: other}
  crossed: {constraint: noise, derive_from: other, match_loss_of: monotone}
  monotone-matched: {constraint: noise, derive_from: baseline, match_loss_of: monotone}
  monotone-planted-token-1:
    {constraint: planted, derive_from: monotone, kind: token, strength: 1.0}
  baseline-planted-token-1:
    {constraint: planted, derive_from: baseline, kind: token, strength: 1.0}"""


def test_models_are_read_as_if_each_were_alone(make_run):
    """Though the other one lacks units, and has fewer examples and a vocabulary."""
    known = [
        "baseline",
        "monotone",
        *(x.split(":")[0].strip() for x in ARMS.split("\n")),
    ]
    known = [x for x in known if not x.startswith("{")]
    told = {
        "seeds": [8, 1],
        "arms": ARMS,
        "clean_loss": dict.fromkeys(known, 2.5),
        "delta_loss": {(x, y): 0.5 for x in known for y in ("hotflip", "random")},
    }
    alone = make_run("alone", **told)
    both = make_run("both", **told, models=OTHER, absent=("Other.monotone.s1.random",))
    for run in (alone, both):
        for label in known[3:]:
            for path, _ in variants(run, label):
                documents = [{"document": "1", "arm_loss": 3.0, "match_loss": 2.0}]
                about = {"documents": documents, "kind": "token", "strength": 1.0}
                edit(path, "derivation", value=derivation(about | {"examples": []}))
    for record in read_all(both):
        if record.model.label == "Other":
            folder = RunFolder(both).unit_dir(record.kind, record.id)
            if record.kind == "cell":
                rewritten(both, folder / "samples.jsonl", lambda row: None, keep=30)
            else:
                (folder / "model").mkdir()
                (folder / "model/config.json").write_text('{"vocab_size": 777}')
    first, second = read(alone), read(both)
    one, same = (dataclasses.asdict(x.models[MODEL]) for x in (first, second))
    assert one == same
    for label in ("baseline", "monotone"):
        one, same = (x.arm(MODEL, label) for x in (first, second))
        np.testing.assert_equal(dataclasses.asdict(same), dataclasses.asdict(one))
    assert one.seeds == (1, 8)
    assert [match.arm for match in one.matches] == ["monotone-matched"]
    plants = [len(first.arm(MODEL, x).plants) for x in ("baseline", "monotone")]
    assert plants == [2, 2]
    other = second.arm("Other", "monotone")
    assert other.cells["hotflip"].delta.shape == (2, 30, 4)
    assert second.models["Other"].vocabulary == 777
    assert [hole.split(".s")[0] for hole in other.holes] == ["Other.monotone"]


def test_a_plant_of_an_older_record_says_nothing(make_run):
    run = make_run(**PLANTED)
    ((path, _),) = variants(run, PLANT)
    edit(path, "derivation", value=derivation({}))
    assert list(read(run).arm(MODEL, "monotone").plants) == []


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
    other = {"other": "{constraint: softplus, against: monotone}"}
    sections = other | matches | plants
    known = (*treated, *matches, *plants)
    run = make_run(
        seeds=[1],
        arms="".join(f"  {label}: {x}\n" for label, x in sections.items()),
        clean_loss=dict.fromkeys(known, 2.5),
        delta_loss={(x, y): 0.5 for x in known for y in ("hotflip", "random")},
        absent=("matched.s1.hotflip", "monotone-planted-token-1.s1.hotflip"),
    )
    found, other = (read(run).arm(MODEL, label) for label in ("monotone", "other"))

    def arms(units):
        return {x.removeprefix(f"{MODEL}.").split(".")[0] for x in units}

    assert arms(found.holes) == {"monotone-matched", "monotone-planted-token-1"}
    # Its own match is made from the baseline, which is not what it is compared with.
    assert arms(other.holes) == {"other-matched", "monotone-planted-token-1"}
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
