"""A store that was damaged between two runs: said, made again, nothing else changed."""

import json
import os
import shutil

import pytest

from harness.base.store import DamagedEntry
from tests.chaos.suite import write_suite


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[-3] ^= 1  # of the last weight: no header tells of it
    file.write_bytes(content)


def halve(file):
    os.truncate(file, file.stat().st_size // 2)


SUBJECT, TOKENS = "subjects/*", "token-blocks/*"
HARMS = [
    ([(SUBJECT, "model/model.safetensors", flip_a_bit)], "the contents of model/model"),
    ([(SUBJECT, "made.json", halve), (TOKENS, "tokens.int32", halve)], "made.json has"),
    (
        [(SUBJECT, "model/model.safetensors", os.unlink)],
        "model/model.safetensors is missing",
    ),
]


@pytest.mark.slow
@pytest.mark.filterwarnings(f"default::{DamagedEntry.__module__}.DamagedEntry")
def test_what_is_damaged_is_made_again_and_results_stay(cli, tmp_path):
    write_suite(tmp_path / "chaos.yaml")
    out, store = tmp_path / "runs" / "chaos", tmp_path / "runs" / ".store"
    command = ["run", tmp_path / "chaos.yaml", "--out", out]
    command += ["--only", "arm=baseline,attack=hotflip"]
    assert cli(*command).code == 0
    (cell,) = out.glob("cells/*.hotflip-*")
    (model,) = out.glob("variants/*/model/model.safetensors")
    samples, weights = (cell / "samples.jsonl").read_bytes(), model.read_bytes()

    for harms, said in HARMS:
        for entry, file, harm in harms:
            for damaged in [*store.glob(f"{entry}/{file}")]:
                harm(damaged)
        shutil.rmtree(cell)
        ended = cli(*command)
        assert ended.code == 0
        assert f"is damaged: {said}" in ended.err
        assert "Traceback" not in ended.err
        assert (cell / "samples.jsonl").read_bytes() == samples
        assert model.read_bytes() == weights
    assert json.loads((cell / "record.json").read_text())["status"] == "complete"


@pytest.mark.parametrize(
    ("out", "code"),
    [("file/below/it", 2), ("file", 2), ("x" * 300, 2)],
)
def test_a_run_folder_that_cannot_be_is_said_in_one_sentence(
    cli, toy_suite, tmp_path, out, code
):
    (tmp_path / "file").touch()
    ended = cli("run", toy_suite, "--out", tmp_path / out)
    assert ended.code == code
    line = ended.err.splitlines()[-1]
    assert line.lower().startswith("error: ")
    assert "Traceback" not in ended.err
    assert str(tmp_path / out.split("/")[0]) in line
