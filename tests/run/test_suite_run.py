"""Whole runs on a tiny random model: order, batches, failures, signals, plugins."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial

import pytest

from harness.running import RunFolder
from harness.running.suite_run import stated_late
from harness.suite import load_experiment, make_plan

BROKEN = '''
"""An attack that fails, until a file says that it is mended."""

from pathlib import Path

from harness import hookimpl
from harness.api.attacks import Adversarial, Attack, Budget


class Broken(Attack):
    """Fail after the first example."""

    name = "broken"

    def run(self, subject, examples, context):
        for number, example in enumerate(examples.test):
            if number and not Path(__file__).with_name("mended").exists():
                raise RuntimeError("the attack is broken")
            yield Adversarial(example.id, example.prompt_ids)

    def budget(self, examples):
        return Budget(0, 0)


@hookimpl
def register_attacks():
    return [Broken]
'''


def adversarial_ids(out):
    found = {}
    for path in sorted(out.glob("cells/*/samples.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.parent.name] = [
            (r["example_id"], r["adversarial_prompt_ids"], r["adversarial_loss"])
            for r in rows
        ]
    return found


def test_batch_size_and_order_of_cells_change_nothing(suite, cli, tmp_path):
    one, other = tmp_path / "runs" / "one", tmp_path / "runs" / "other"
    assert cli("run", suite, "--out", one, "--batch-size", 64).code == 0
    backwards = ("random", "uat", "hotflip")
    for attack in backwards:
        done = cli(
            *("run", suite, "--out", other, "--batch-size", 3),
            *("--only", f"attack={attack}"),
        )
        assert done.code == 0
    assert len(adversarial_ids(one)) == 6
    assert adversarial_ids(one) == adversarial_ids(other)


def test_the_process_that_replays_begins_with_the_first_cell(
    suite, cli, tmp_path, monkeypatch
):
    out, began = tmp_path / "runs" / "tiny", []
    monkeypatch.setattr(
        "harness.running.suite_run.PlainProcess.begin",
        lambda self: began.append([*out.glob("variants/*/record.json")]),
    )
    only = ("--only", "arm=baseline", "--only", "attack=random")
    assert cli("run", suite, "--out", out, *only, "--set", "metrics=null").code == 0
    assert [len(records) for records in began] == [1]


def test_a_frozen_model_is_certified_while_it_is_brought_to_disk(
    suite, cli, tmp_path, monkeypatch
):
    from harness.running import variant

    done, certify, frozen = [], variant.certify, variant.frozen_meanwhile

    @contextmanager
    def watched(*given):
        with frozen(*given) as pair:
            yield pair
            done.append("on disk")

    monkeypatch.setattr(variant, "frozen_meanwhile", watched)
    monkeypatch.setattr(
        variant, "certify", lambda *given: done.append("certified") or certify(*given)
    )
    only = ("--only", "arm=gauge", "--only", "attack=random")
    out = tmp_path / "runs" / "tiny"
    assert cli("run", suite, "--out", out, *only, "--set", "metrics=null").code == 0
    assert done == ["certified", "certified", "on disk"]


def test_a_failed_cell_is_recorded_and_does_not_end_the_suite(suite, cli, tmp_path):
    plugin, out = tmp_path / "broken.py", tmp_path / "runs" / "tiny"
    plugin.write_text(BROKEN)
    arguments = ("run", suite, "--out", out, "--plugins", plugin)
    arguments += ("--set", "attacks.broken={}", "--set", "attacks.uat=null")

    first = cli(*arguments)
    assert first.code == 1
    assert "6 of 8 complete; failed: tiny.baseline.s7.broken-" in first.err
    (path,) = out.glob("cells/tiny.gauge.s7.broken-*/record.json")
    record = json.loads(path.read_text())
    assert record["status"] == "failed"
    assert record["error"]["message"] == "the attack is broken"
    assert "Traceback" in record["error"]["traceback"]
    assert cli("validate", out).code == 1

    (tmp_path / "mended").touch()
    second = cli(*arguments)
    assert second.code == 0
    assert "8 of 8 complete (6 of them before)" in second.err
    assert json.loads(path.read_text())["provenance"]["restarts"] == 1
    assert cli("validate", out).code == 0


def test_a_plugin_in_one_file_is_listed_runs_and_validates(
    suite, cli, tmp_path, example_plugin
):
    plugin = tmp_path / "rotating.py"
    shutil.copy(example_plugin, plugin)
    listed = cli("list", "attack", "--plugins", plugin)
    assert "rotate" in listed.out
    out = tmp_path / "runs" / "tiny"
    arguments = ("--set", "attacks={rotate: {}}", "--set", "arms.gauge=null")
    done = cli("run", suite, "--out", out, "--plugins", plugin, *arguments)
    assert done.code == 0
    assert cli("validate", out).code == 0


@pytest.mark.transformers5
def test_an_arm_made_from_another_begins_with_its_frozen_weights(suite, cli, tmp_path):
    import torch

    from harness.models.freezing import load_frozen

    out = tmp_path / "runs" / "tiny"
    arguments = ("run", suite, "--out", out, "--only", "arm=copy,attack=hotflip")
    arguments += ("--set", "arms.copy={derive_from: gauge, attacks: [hotflip, uat]}")
    done = cli(*arguments)
    assert done.code == 0
    assert "3 of 3 complete" in done.err  # the gauge, the copy and one cell
    (gauge,), (copy,) = (out.glob(f"variants/*.{a}.*") for a in ("gauge", "copy"))
    weights = [
        load_frozen(folder / "model")[0].state_dict() for folder in (gauge, copy)
    ]
    assert all(map(torch.equal, weights[0].values(), weights[1].values()))
    record = json.loads((copy / "record.json").read_text())
    assert record["arm"]["derive_from"] == "gauge"
    assert record["arm"]["recovery"] is None
    assert record["recovery"]["status"] == "none"
    assert record["certificate"]["after"]["status"] == "nothing_promised"
    assert cli("run", out / "suite.resolved.yaml", "--out", out).code == 0
    assert cli("validate", out).code == 0


def test_plants_come_after_the_attacks_that_they_exceed(suite, cli, tmp_path):
    out, arms = tmp_path / "runs" / "tiny", "derive_from: gauge, constraint: planted"
    arguments = ("run", suite, "--out", out, "--set", "attacks.uat=null")
    for label, more in (
        ("weak", "kind: ffn, strength: 0.1, weaker_than: strong, examples: 2"),
        ("strong", "kind: ffn, strength: 0.3, steps: 3, examples: 2"),
    ):
        arguments += ("--set", f"arms.{label}={{{arms}, attacks: [hotflip], {more}}}")
    early = cli(*arguments, "--only", "arm=strong")
    assert early.code == 0
    assert "1 of 1 complete; left for later" in early.err  # the gauge alone
    assert cli(*arguments).code == 0
    assert cli("validate", out).code == 0
    deltas, found = {}, {}
    for arm in ("gauge", "strong"):
        (path,) = out.glob(f"cells/tiny.{arm}.s7.hotflip-*/samples.jsonl")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        deltas[arm] = [row["delta_loss"] for row in rows]
        assert len(rows) == (2 if arm == "strong" else 5)
    for arm in ("weak", "strong"):
        (path,) = out.glob(f"variants/tiny.{arm}.s7-*/record.json")
        record = json.loads(path.read_text())
        found[arm] = record["derivation"]["measured"]
        own = [row["own"] for row in found[arm]["examples"]]
        assert own == pytest.approx(deltas["gauge"], abs=1e-6)
        assert found[arm]["aim"] == pytest.approx(
            sum(own) / 5 + found[arm]["strength"], abs=1e-6
        )
        # What the arm promises of its weights is certified of the plant.
        checks = record["certificate"]["after"]["checks"]
        assert checks[0]["status"] == "pass"
        assert record["results"] == {}


def test_a_match_has_the_clean_loss_of_its_arm(suite, cli, tmp_path):
    out = tmp_path / "runs" / "tiny"
    done = cli(
        *("run", suite, "--out", out, "--only", "arm=match,seed=7"),
        *("--set", "arms.abs={start: abs}", "--set", "attacks=null"),
        *("--set", "arms.match={derive_from: baseline, match_loss_of: abs}"),
        *("--set", "arms.match.constraint=noise"),
    )
    assert done.code == 0
    found = {}
    for path in out.glob("variants/*/record.json"):
        record = json.loads(path.read_text())
        found[record["arm"]["label"]] = record
    derivation = found["match"]["derivation"]
    assert found["match"]["arm"]["match_loss_of"] == "abs"
    apart = derivation["results"]["test_difference"]
    assert apart["n"] == 5
    assert derivation["achieved"] == (abs(apart["value"]) <= 0.02)
    assert found["abs"]["derivation"] is None
    for path in out.glob("variants/*/record.json"):
        assert cli("validate", path).code == 0


@pytest.mark.parametrize("treatment", ["{}", "{constraint: softplus, start: gauge}"])
def test_training_again_passes_where_it_ended(suite, cli, tmp_path, treatment):
    """The same arm again has the loss that the training ends at: the last step's."""
    out = tmp_path / "runs" / "tiny"
    arms = {
        "source": treatment,
        "same": treatment,
        "match": "{constraint: earlier, derive_from: source, match_loss_of: same}",
    }
    done = cli(
        *("run", suite, "--out", out, "--only", "arm=match,seed=7"),
        *("--set", "attacks=null", "--set", "recovery.learning_rate=1e-2"),
        *(x for label, arm in arms.items() for x in ("--set", f"arms.{label}={arm}")),
    )
    assert done.code == 0
    (path,) = out.glob("variants/*.match.*/record.json")
    record = json.loads(path.read_text())
    found = record["derivation"]
    assert found["achieved"]
    assert found["measured"]["tokens"] == found["measured"]["tokens_of_all"] == 512
    assert found["measured"]["evaluations"] == 5  # before the first of four steps, too
    assert found["results"]["test_difference"]["value"] == pytest.approx(0, abs=1e-6)
    assert record["ledger"]["kept"]["train"]["tokens_backward"] == 512
    assert cli("validate", path).code == 0


def test_an_arm_whose_source_failed_says_so(suite, cli, tmp_path):
    out = tmp_path / "runs" / "tiny"
    done = cli(
        *("run", suite, "--out", out, "--only", "arm=copy"),
        *("--set", "arms.gauge.layers=7", "--set", "arms.copy={derive_from: gauge}"),
    )
    assert done.code == 1
    (path,) = out.glob("variants/tiny.copy.*/record.json")
    message = json.loads(path.read_text())["error"]["message"]
    assert message.startswith("the arm gauge, which it is made from, is failed: layers")


def start(*arguments):
    """Run a suite in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness", "run", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # Tests in the background of a shell ignore Ctrl-C, and so would their children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


PAUSING = '''
"""HotFlip, waiting after its first result for as long as a file is there."""

import time
from pathlib import Path

from harness import hookimpl
from harness_plugins.attacks.hotflip import HotFlip


class Pausing(HotFlip):
    """Flip the tokens of highest gain, and wait."""

    name = "pausing"

    def run(self, subject, examples, context):
        for found in super().run(subject, examples, context):
            yield found
            pause = Path(__file__).with_name("pause")
            while context.blind is None and pause.exists():  # its control does not
                time.sleep(0.01)


@hookimpl
def register_attacks():
    return [Pausing]
'''


def wait_for_a_row(out, process):
    """Wait until the attack that then pauses has finished an example."""
    while not any(
        '"row": {' in path.read_text()
        for path in out.glob("cells/*.pausing-*/samples.partial.jsonl")
    ):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def attack_costs(out, part):
    """Return the FLOPs of attacks by cell, as their ledgers have them."""
    records = [json.loads(p.read_text()) for p in out.glob("cells/*/record.json")]
    return {r["id"]: r["ledger"][part]["attack"]["flops_whole"] for r in records}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGKILL, -9)],
)
def test_what_was_finished_survives_a_signal(suite, cli, tmp_path, number, code):
    plugin, pause = tmp_path / "pausing.py", tmp_path / "pause"
    plugin.write_text(PAUSING)
    pause.touch()
    options = ["--plugins", plugin, "--set", "attacks.random.match=pausing"]
    options += ["--set", "attacks.pausing={flips: 2, candidates: 12}"]
    options += ["--set", "attacks.hotflip=null", "--set", "attacks.uat=null"]
    options += ["--set", "diagnostics=none"]
    out, whole = tmp_path / "runs" / "cut", tmp_path / "runs" / "whole"
    run = (suite, *options)
    process = start(*run, "--out", out)
    wait_for_a_row(out, process)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == code
    (log,) = out.glob("cells/*.baseline.*.pausing-*/log.txt")
    assert ("WARNING harness.running.unit: interrupted" in log.read_text()) == (
        code > 0
    )
    assert list(out.glob("variants/*.baseline.*/record.json"))
    assert list(out.glob("cells/*.baseline.*.random-*/record.json"))

    pause.unlink()
    assert cli("run", *run, "--out", out).code == 0
    assert cli("run", *run, "--out", whole).code == 0
    assert adversarial_ids(out) == adversarial_ids(whole)
    assert cli("validate", out).code == 0

    kept, spent = attack_costs(out, "kept"), attack_costs(out, "spent")
    assert kept == pytest.approx(attack_costs(whole, "kept"), rel=1e-6)
    (cut,) = (cell for cell in spent if spent[cell] > 1.01 * kept[cell])
    assert ".baseline.s7.pausing-" in cut
    assert spent[cut] > 1.5 * kept[cut]  # all examples were under way, one was kept


def test_a_margin_that_is_changed_after_results_is_said(make_run):
    folder = RunFolder(make_run())
    for margin, told in (
        ("10 %", None),
        ("5 %", "margin changed after 12 records, from"),
    ):
        override = f"verdicts.margin={margin}"
        plan = make_plan(load_experiment(folder.suite_file, overrides=[override]))
        found = [change for what, change in stated_late(plan, folder)]
        assert not found if told is None else found[0].startswith(told)


def test_claims_that_come_after_results_are_said(make_run):
    stated = "claims: {g: {a: {attack: hotflip, arm: monotone, dL: < 0}}}"
    folder = RunFolder(make_run(more=stated))
    was = "g.a was dL of hotflip, monotone against baseline: < 0"
    for bound, told in (
        ("< 0", []),
        ("< 0.1", [("claims", f"claims changed after 12 records ({was})")]),
    ):
        override = f"claims.g.a.dL='{bound}'"
        plan = make_plan(load_experiment(folder.suite_file, overrides=[override]))
        assert list(stated_late(plan, folder)) == told
