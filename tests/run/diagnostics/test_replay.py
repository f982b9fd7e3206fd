"""Rows from disk, scored by plain transformers: what agrees, and what does not."""

import hashlib
import io
import json
import math
from pathlib import Path

import pytest
import torch

from harness.base import RecordError, sha256_file
from harness.models import freeze
from harness.running import RunFolder
from harness.running.diagnostics import plain_replay, replay
from harness.testing import tiny_model, tiny_tokenizer
from tests.run_fixtures import edit, read_all

pytestmark = pytest.mark.transformers5

PROMPT, REFERENCE = [30, 40, 50, 60], [70, 80]


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frozen")
    freeze(tiny_model("gpt_neox"), tiny_tokenizer(), folder)
    return folder


def by_hand(model, prompt):
    """Return the loss of the reference after a prompt, from log-probabilities."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *REFERENCE]])).logits[0]
    log_p = logits.double().log_softmax(-1)
    picked = [float(log_p[len(prompt) - 1 + k, t]) for k, t in enumerate(REFERENCE)]
    return -sum(picked) / len(picked)


def row_of(model, index, off=0.0, checkpoint_off=0.0):
    attacked, sooner = [31 + index, *PROMPT[1:]], [99, *PROMPT[1:]]
    return {
        "status": "attacked",
        "clean_prompt_ids": PROMPT,
        "adversarial_prompt_ids": attacked,
        "reference_ids": REFERENCE,
        "clean_loss": by_hand(model, PROMPT),
        "adversarial_loss": by_hand(model, attacked) + off,
        "checkpoints": [
            {
                "adversarial_prompt_ids": sooner,
                "adversarial_loss": by_hand(model, sooner) + checkpoint_off,
            }
        ],
    }


def replayed(monkeypatch, capsys, model, samples, rows=4):
    cell = {"id": "cell", "samples": str(samples), "rows": rows}
    jobs = json.dumps([{"model": str(model), "cells": [cell]}])
    monkeypatch.setattr("sys.stdin", io.StringIO(jobs))
    plain_replay.main()
    return json.loads(capsys.readouterr().out)["cell"]


@pytest.mark.parametrize(
    ("off", "largest"),
    [((0.0, 0.0), 0.0), ((0.01, 0.0), 0.01), ((0.0, -0.02), 0.02)],
)
def test_losses_are_compared_at_every_prompt_of_a_row(
    off, largest, frozen, tmp_path, monkeypatch, capsys
):
    model = tiny_model("gpt_neox").eval()
    rows = [row_of(model, k, *(off if k == 4 else ())) for k in range(8)]
    rows[0] = {"status": "error"}
    samples = tmp_path / "samples.jsonl"
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = replayed(monkeypatch, capsys, frozen, samples, rows=7)
    assert (found["rows"], found["passes"], found["plain"]) == (7, 21, True)
    assert found["largest"] == pytest.approx(largest, abs=1e-5)
    assert replayed(monkeypatch, capsys, frozen, samples, rows=3)["rows"] == 3


def test_a_loss_that_is_not_finite_fails(tmp_path, monkeypatch, capsys):
    model = tiny_model("gpt_neox").eval()
    row = row_of(model, 0)
    with torch.no_grad():
        model.get_input_embeddings().weight[PROMPT[1]] = math.nan
    freeze(model, tiny_tokenizer(), tmp_path / "model")
    samples = tmp_path / "samples.jsonl"
    samples.write_text(json.dumps(row) + "\n")
    found = replayed(monkeypatch, capsys, tmp_path / "model", samples)
    assert (found["largest"], found["error"]) == (None, "a replayed loss is not finite")


def test_a_subject_that_cannot_be_loaded_fails_its_cells(tmp_path, monkeypatch, capsys):
    samples = tmp_path / "samples.jsonl"
    samples.write_text("{}")
    found = replayed(monkeypatch, capsys, tmp_path / "nothing", samples)
    assert "cannot be loaded" in found["error"]
    assert found["samples_sha256"] == hashlib.sha256(b"{}").hexdigest()


@pytest.mark.parametrize(
    ("change", "fault", "largest"),
    [
        ({}, None, 1e-6),
        (None, "it was not replayed", None),
        ({"samples_sha256": "0" * 64}, "its samples are others", None),
        ({"error": "the process failed"}, "the process failed", None),
        ({"largest": None}, "it has no row to replay", None),
    ],
)
def test_only_rows_as_they_are_count_as_replayed(make_run, change, fault, largest):
    run = make_run(seeds=[1])
    first, *others = [x for x in read_all(run) if x.kind == "cell"]
    known = replay.read(RunFolder(run))
    known[first.id] = {**known[first.id], **(change or {})}
    if change is None:
        del known[first.id]
    (run / replay.FILE).write_text(json.dumps(known))
    found = replay.replays(RunFolder(run), [first, *others])
    assert [x.cell for x in found] == [first.id, *(x.id for x in others)]
    assert found[0].largest == largest
    assert (fault or "") in (found[0].fault or "")
    assert (found[0].fault is None) == (fault is None)
    assert {x.fault for x in found[1:]} == {None}


def test_a_file_that_is_no_json_is_named(make_run):
    run = make_run(seeds=[1])
    (run / replay.FILE).write_text("{")
    with pytest.raises(RecordError, match=r"replay\.json is no JSON"):
        replay.replays(RunFolder(run), [])


def test_cells_are_replayed_once_and_again_where_their_samples_changed(make_run):
    run, asked, process = make_run(seeds=[1]), [], replay.PlainProcess()

    def answers(jobs):
        asked.extend(cell["id"] for job in jobs for cell in job["cells"])
        return {
            cell["id"]: {
                "passes": 8,
                "largest": 0.0,
                "samples_sha256": sha256_file(Path(cell["samples"])),
            }
            for job in jobs
            for cell in job["cells"]
        }

    process.answers = answers
    from harness.running import survey

    known = replay.read(RunFolder(run))
    stale, missing, *_ = sorted(known)
    edit(run / replay.FILE, stale, "samples_sha256", value="0" * 64)
    known = replay.read(RunFolder(run))
    del known[missing]
    (run / replay.FILE).write_text(json.dumps(known))
    found = survey(run)
    replay.replay_run(found.plan, found.folder, "cpu", process)
    assert sorted(asked) == [stale, missing]
    records = [x for x in read_all(run) if x.kind == "cell"]
    assert {x.fault for x in replay.replays(RunFolder(run), records)} == {None}


@pytest.mark.replays
def test_a_process_that_began_early_answers_when_it_is_asked(tmp_path):
    samples = tmp_path / "samples.jsonl"
    samples.write_text("{}")
    cell = {"id": "cell", "samples": str(samples), "rows": 1}
    with replay.PlainProcess() as process:
        process.begin()
        found = process.answers([{"model": str(tmp_path / "none"), "cells": [cell]}])
    assert "cannot be loaded" in found["cell"]["error"]


@pytest.mark.replays
def test_a_process_that_fails_is_said_of_each_cell(monkeypatch, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('no such thing')")
    monkeypatch.setattr(replay.plain_replay, "__file__", str(broken))
    jobs = [{"model": "m", "cells": [{"id": "one"}, {"id": "two"}]}]
    with replay.PlainProcess() as process:
        found = process.answers(jobs)
    said = "the process failed: no such thing"
    assert found == {"one": {"error": said}, "two": {"error": said}}


@pytest.mark.replays
def test_a_process_that_is_not_asked_ends_with_the_run():
    with pytest.raises(ValueError, match="stop"), replay.PlainProcess() as process:
        process.begin()
        begun = process._process
        raise ValueError("stop")
    assert begun.returncode == -9
