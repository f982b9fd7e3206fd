"""Cells that read other cells or use other arms: order, ids, failures, resuming."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from harness.base import content_hash
from harness.cli import main
from harness.records import SampleRow
from harness.running.journal import Journal
from harness.running.suite_run import units_of
from harness.suite import load_experiment, make_plan
from tests.tiny_inputs import write_inputs

pytestmark = pytest.mark.xdist_group("peers")
SUITE = """
name: peers
models:
  tiny: {adapter: pythia, path: model}
arms:
  baseline: {}
  abs: {constraint: none, start: abs}
  gauge: {constraint: softplus, start: gauge}
corpora:
  test: {path: text.jsonl}
examples:
  test: {corpus: test, count: 3}
  prompt_tokens: 8
  reference_tokens: 5
attacks:
  worst_case: {}
  transfer: {}
  adaptive: {of: hotflip, controls: none}
  average: {attack: adaptive, of: hotflip, through: average, controls: [random]}
  hotflip: {flips: 2, candidates: 8, candidates_from: gradient, controls: none}
  none: {}
seeds: [7, 8]
"""
ARMS = ("abs", "baseline", "gauge")
PLAIN = ("hotflip", "none")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with the suite, its model and its text."""
    folder = tmp_path_factory.mktemp("peers")
    write_inputs(folder, 6)
    (folder / "peers.yaml").write_text(SUITE)
    return folder


@pytest.fixture(scope="module")
def done(place):
    """Return the folder of a whole run."""
    out = place / "runs" / "whole"
    with pytest.raises(SystemExit) as ended:
        main(["run", str(place / "peers.yaml"), "--out", str(out)])
    assert ended.value.code == 0
    return out


def rows(out, arm, attack, seed=7):
    """Return the rows of a cell by example."""
    (path,) = out.glob(f"cells/tiny.{arm}.s{seed}.{attack}-????????/samples.jsonl")
    return {r["example_id"]: r for r in map(json.loads, path.read_text().splitlines())}


def record(out, arm, attack, seed=7):
    (path,) = out.glob(f"cells/tiny.{arm}.s{seed}.{attack}-????????/record.json")
    return json.loads(path.read_text())


def plain_loss(out, arm, seed, prompt, reference):
    """Return a loss by transformers alone, from the frozen model of a variant."""
    import torch
    from transformers import AutoModelForCausalLM

    (folder,) = out.glob(f"variants/tiny.{arm}.s{seed}-*/model")
    model = AutoModelForCausalLM.from_pretrained(folder).double()
    with torch.no_grad():
        logits = model(torch.tensor([prompt + reference])).logits[0]
    scored = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return -scored.gather(1, torch.tensor(reference)[:, None]).mean().item()


# --- what comes out -----------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
def test_transfer_scores_every_source_and_keeps_the_best(done, arm):
    sources = [
        (other, attack)
        for other in ARMS
        for attack in ("adaptive", "average", *PLAIN)
        if other != arm
    ]
    for example, row in rows(done, arm, "transfer").items():
        trace = row["trace"]
        assert [(s["source"], s["attack"]) for s in trace] == sources
        best = max(trace, key=lambda step: step["delta_loss"])
        assert row["delta_loss"] == best["delta_loss"]
        made = rows(done, best["source"], best["attack"])[example]
        assert row["adversarial_prompt_ids"] == made["adversarial_prompt_ids"]
        assert {s["delta_loss"] for s in trace if s["attack"] == "none"} == {0.0}


def test_transferred_losses_are_those_of_plain_transformers(done):
    row = next(iter(rows(done, "abs", "transfer").values()))
    for step in row["trace"]:
        made = rows(done, step["source"], step["attack"])[row["example_id"]]
        losses = [
            plain_loss(done, "abs", 7, prompt, row["reference_ids"])
            for prompt in (made["clean_prompt_ids"], made["adversarial_prompt_ids"])
        ]
        assert step["delta_loss"] == pytest.approx(losses[1] - losses[0], abs=1e-4)


@pytest.mark.parametrize("arm", ARMS)
def test_the_worst_case_is_no_better_than_any_attack_of_any_seed(done, arm):
    attacks = ("adaptive", "average", *PLAIN, "transfer")
    for example, row in rows(done, arm, "worst_case", 8).items():
        own = [rows(done, arm, x, 8)[example]["delta_loss"] for x in attacks]
        assert row["delta_loss"] >= max(own)
        others = {
            tuple(rows(done, arm, x, seed)[example]["adversarial_prompt_ids"])
            for x in attacks
            for seed in (7, 8)
        }
        assert tuple(row["adversarial_prompt_ids"]) in others
        read = [(s["source"], s["attack"], s["seed"]) for s in row["trace"]]
        assert read == [(arm, x, seed) for seed in (7, 8) for x in sorted(attacks)]


def test_no_attack_changes_exactly_nothing(done):
    for arm in ARMS:
        for row in rows(done, arm, "none").values():
            assert row["delta_loss"] == 0.0
            assert row["status"] == "unchanged"


def test_an_adaptive_attack_pays_for_the_passes_through_other_arms(done):
    labels = ("adaptive", "average", "hotflip", "average-random")
    own, average, hotflip, control = (
        record(done, "abs", label)["ledger"]["kept"]["attack"] for label in labels
    )
    assert own["sequences_backward"] == hotflip["sequences_backward"] > 0
    assert average["sequences_backward"] == 3 * hotflip["sequences_backward"]
    assert control["sequences_backward"] == 0
    assert control["flops_whole"] == pytest.approx(average["flops_whole"], rel=0.05)


def test_an_adaptive_attack_follows_the_gradient_of_the_arm_it_names(place, done):
    """Its steps are those of the attack on its own arm, with the other's gradient."""
    from harness.api.attacks import AttackContext
    from harness.data.document import Example, ExampleSets
    from harness.models.freezing import load_frozen
    from harness.subject import Subject, TokenRules
    from harness_plugins.attacks.hotflip import HotFlip, HotFlipOptions

    def subject(arm):
        (folder,) = done.glob(f"variants/tiny.{arm}.s7-*/model")
        return Subject(*load_frozen(folder), rules=TokenRules())  # as suites have it

    own, baseline = subject("abs"), subject("baseline")
    found = rows(done, "abs", "adaptive")
    examples = [
        Example(
            key,
            key,
            np.array(row["clean_prompt_ids"]),
            np.array(row["reference_ids"]),
        )
        for key, row in found.items()
    ]
    plan = make_plan(load_experiment(done / "suite.resolved.yaml"))
    (cell,) = (
        c
        for c in plan.cells
        if (c.variant.arm, c.variant.seed, c.attack) == ("abs", 7, "adaptive")
    )
    options = {"flips": 2, "candidates": 8, "candidates_from": "gradient"}
    attack = HotFlip(HotFlipOptions(**options, searches=2))  # twice its budget
    view = own.with_gradients_from(baseline.gradients)
    context = AttackContext(content_hash(cell.identity), checkpoints=(0.125, 0.25, 0.5))
    for made in attack.run(view, ExampleSets(examples), context):
        row = found[made.example_id]
        assert row["adversarial_prompt_ids"] == made.prompt_ids.tolist()
        held = {x["share"]: x["adversarial_prompt_ids"] for x in row["checkpoints"]}
        assert held == {2 * k: ids.tolist() for k, ids in made.checkpoints.items()}


@pytest.mark.parametrize(
    ("label", "share", "checkpoints"),
    [
        ("hotflip", 2, [0.25, 0.5, 1]),
        ("adaptive", 2, [0.25, 0.5, 1]),
        ("average-random", 2, [0.25, 0.5, 1]),  # with what it is a control of
        ("none", 1, []),  # there is nothing to double
        ("worst_case", 1, []),
    ],
)
def test_attacks_and_their_controls_get_twice_what_is_stated_and_say_so(
    done, label, share, checkpoints
):
    found = record(done, "abs", label)
    assert found["attack"]["share"] == found["identity"].get("share", 1) == share
    for row in rows(done, "abs", label).values():
        assert row["share"] == share
        assert [one["share"] for one in row["checkpoints"]] == checkpoints
        for one in row["checkpoints"]:
            ids = one["adversarial_prompt_ids"], row["reference_ids"]
            loss = plain_loss(done, "abs", 7, *ids)
            assert one["adversarial_loss"] == pytest.approx(loss, abs=1e-4)


def test_without_verdicts_attacks_run_as_they_are_stated(plan):
    plain, judged = plan("diagnostics=none"), plan()
    for cell in plain.cells:
        assert "share" not in cell.identity
    assert hashes(plain)["abs", 7, "hotflip"] != hashes(judged)["abs", 7, "hotflip"]


def test_the_report_shows_all_pairs_and_the_worst_case(done):
    from harness.report import build
    from harness.running.surveying import survey

    tables = {table.key: table for table in build(survey(done)).tables}
    shown = {
        (row[0].short, row[1].text, row[2].text): row for row in tables["transfer"].rows
    }
    attacks = ("adaptive", "average", *PLAIN)
    assert set(shown) == {
        (arm, other, attack)
        for arm in ARMS
        for other in ARMS
        for attack in attacks
        if arm != other
    }
    deltas = [
        step["delta_loss"]
        for seed in (7, 8)
        for row in rows(done, "abs", "transfer", seed).values()
        for step in row["trace"]
        if (step["source"], step["attack"]) == ("gauge", "hotflip")
    ]
    row = shown["abs", "gauge", "hotflip"]
    assert row[3].value == pytest.approx(np.mean(deltas))
    made = [
        r["delta_loss"]
        for seed in (7, 8)
        for r in rows(done, "gauge", "hotflip", seed).values()
    ]
    assert row[5].value == pytest.approx(np.mean(made))
    groups = [column.group for column in tables["main"].columns]
    assert "worst_case" in groups
    assert "worst case" not in groups  # the cells have it
    assert "average-random" not in groups


# --- order and identity -------------------------------------------------------------


@pytest.fixture
def plan(place, done):
    """Return a function that plans the suite as it was run, with overrides."""

    def make(*overrides, only=None):
        path = done / "suite.resolved.yaml"
        return make_plan(load_experiment(path, overrides=overrides), only)

    return make


def test_every_unit_stands_after_what_it_needs(plan):
    units = units_of(plan())
    assert len(units) == 6 + 6 * 7
    places = {unit.id: i for i, unit in enumerate(units)}
    for unit in units:
        assert all(places[need.id] < places[unit.id] for need in unit.needs)


def hashes(made):
    return {
        (c.variant.arm, c.variant.seed, c.attack): c.id.rpartition("-")[2]
        for c in made.cells
    }


def changed(before, after):
    first, second = hashes(before), hashes(after)
    return {key for key in first if second.get(key) != first[key]}


def test_an_identity_holds_those_of_what_it_reads(plan):
    after = plan("attacks.hotflip.flips=1")
    attacks = {attack for _, _, attack in changed(plan(), after)}
    assert attacks == {
        "hotflip",
        "adaptive",
        "average",
        "average-random",
        "transfer",
        "worst_case",
    }


def test_an_identity_changes_with_the_arms_it_uses(plan):
    found = changed(plan(), plan("arms.gauge.start=abs"))
    assert {a for arm, _, a in found if arm == "abs"} == {
        "average",  # over all arms
        "transfer",
        "worst_case",
    }
    assert {a for arm, _, a in found if arm == "baseline"} == {
        "average",
        "transfer",
        "worst_case",
    }


def test_a_selection_leaves_ids_as_they_are(plan):
    part = plan(only={"arm": ["abs"], "seed": ["7"], "attack": ["worst_case"]})
    key = ("abs", 7, "worst_case")
    assert hashes(part) == {key: hashes(plan())[key]}


def test_more_seeds_change_the_worst_case_alone(plan):
    found = changed(plan(), plan("seeds=[7, 8, 9]"))
    assert {attack for _, _, attack in found} == {"worst_case"}


# --- runs ---------------------------------------------------------------------------


def run_here(cli, place, out, *arguments):
    return cli("run", place / "peers.yaml", "--out", out, *arguments)


SMALL = ("--set", "arms.gauge=null", "--set", "attacks.average=null", "--seeds", "7")


def test_cells_that_read_what_was_not_selected_are_left_for_later(cli, place, tmp_path):
    out = tmp_path / "runs" / "part"
    first = run_here(cli, place, out, *SMALL, "--only", "arm=abs")
    assert first.code == 0
    (last,) = (x for x in first.err.splitlines() if "left for later" in x)
    assert "3 of 3 complete; left for later" in last
    for attack in ("adaptive", "transfer", "worst_case"):
        assert f"tiny.abs.s7.{attack}-" in last
        assert not list(out.glob(f"cells/*.{attack}-*"))

    second = run_here(cli, place, out, *SMALL)
    assert second.code == 0
    assert "12 of 12 complete (3 of them before)" in second.err
    assert cli("validate", out).code == 0


def test_a_source_that_failed_is_named_and_what_reads_it_runs_when_it_is_mended(
    cli, place, tmp_path
):
    from tests.run.test_suite_run import BROKEN

    plugin, out = tmp_path / "broken.py", tmp_path / "runs" / "broken"
    plugin.write_text(BROKEN)
    arguments = (*SMALL, "--plugins", plugin, "--set", "attacks.hotflip=null")
    arguments += ("--set", "attacks.adaptive=null", "--set", "attacks.none=null")
    arguments += ("--set", "attacks.broken={}")

    first = run_here(cli, place, out, *arguments)
    assert first.code == 1
    failed = record(out, "abs", "transfer")
    assert failed["status"] == "failed"
    assert failed["error"]["message"].startswith("tiny.baseline.s7.broken-")
    assert (
        "which it replays, is failed: the attack is broken"
        in (failed["error"]["message"])
    )
    assert failed["error"]["traceback"] is None

    (tmp_path / "mended").touch()
    assert run_here(cli, place, out, *arguments).code == 0
    assert record(out, "abs", "worst_case")["status"] == "complete"


def test_a_replay_goes_on_where_it_was_cut(cli, place, done, tmp_path):
    out = tmp_path / "runs" / "cut"
    shutil.copytree(done, out, symlinks=True)
    (folder,) = out.glob("cells/tiny.abs.s7.transfer-*")
    whole = (folder / "samples.jsonl").read_text()
    (folder / "record.json").unlink()
    (folder / "samples.jsonl").unlink()
    first = json.loads(whole.splitlines()[0])
    first["adversarial_text"] = "as it was"
    journal = Journal(folder / "samples.partial.jsonl", folder.name, "cpu")
    journal.note({}, SampleRow.model_validate_json(json.dumps(first)))

    assert run_here(cli, place, out).code == 0
    again = (folder / "samples.jsonl").read_text().splitlines()
    assert json.loads(again[0])["adversarial_text"] == "as it was"
    assert again[1:] == whole.splitlines()[1:]


def test_what_was_left_beside_a_complete_record_is_removed(cli, place, done, tmp_path):
    out = tmp_path / "runs" / "left"
    shutil.copytree(done, out, symlinks=True)
    folders = [next(out.glob("cells/tiny.abs.s7.*")), next(out.glob("variants/*"))]
    left = [x / y for x in folders for y in ("samples.partial.jsonl", "deaths.jsonl")]
    for path in left:
        path.touch()
    assert run_here(cli, place, out).code == 0
    assert not any(path.exists() for path in left)


@pytest.mark.slow
def test_two_runs_share_cells_that_wait_for_each_other(place, tmp_path):
    out = tmp_path / "runs" / "shared"
    command = [sys.executable, "-m", "harness", "run", place / "peers.yaml"]
    command += ["--out", out, *SMALL]
    processes = [
        subprocess.Popen(
            [*map(str, command)],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert all("12 of 12 complete" in text for text in said)
    started = [x for text in said for x in text.splitlines() if x.startswith("[")]
    assert len(started) == 12
