"""Attack a model of one's own: no folder's name is read, no option is needed."""

import inspect
import json
import random
import re
import shlex

import pytest

from harness.base import UsageError, sha256_file
from harness.cli.attack import command
from harness.results import attack, load_run
from harness.suite import load_experiment, validate_suite
from harness.testing import TEXT, tiny_model, tiny_tokenizer
from tests.run_fixtures import edit

WORDS = TEXT.split()


def sentences(count, words):
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=words)) for _ in range(count)]


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(sentences(14, 60)))
    return path


def save(folder, family):
    tiny_model(family).save_pretrained(folder)
    tiny_tokenizer(closed=family == "t5").save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt_neox", "t5", "llama"])
def test_a_model_is_attacked_with_controls(cli, tmp_path, texts, family):
    model, out = save(tmp_path / "mine", family), tmp_path / "out"
    asked = ["--examples", 4, "--flips", 1, "--device", "cpu", "--out", out]
    outcome = cli("attack", model, texts, *asked)
    assert outcome.code == 0, outcome.err
    run = load_run(out)
    assert {*run.cells.attack} == {
        "hotflip",
        "hotflip-permuted",
        "hotflip-random",
        "query",
        "query-random",
    }
    assert set(run.cells.status) == {"complete"}
    assert set(run.cells.n if "n" in run.cells else [4]) == {4}
    shown = run.cells.set_index("attack").delta_loss
    told = outcome.out[outcome.out.index("\nhotflip on mine: ") :].splitlines()
    assert all(len(line) <= 88 for line in told if str(tmp_path) not in line)
    for name in ("hotflip", "query"):
        assert f"by {shown[name]:.2f} nats/token on 4 texts" in outcome.out
        assert f"more than {name}-random at the same budget" in outcome.out
    # Five examples, the worst first, each with what changed.
    assert outcome.out.count("  clean ") == outcome.out.count("  attacked ") == 5
    # As a process leaves it that is killed once the record is written.
    leftover = next((out / "cells").iterdir()) / "samples.partial.jsonl"
    leftover.touch()
    again = cli("run", out / "suite.yaml", "--out", out, "--device", "cpu")
    assert "6 of 6 complete (6 of them before)" in again.err
    assert not leftover.exists()
    if family == "gpt_neox":
        replays(cli, out)


def replays(cli, out):
    """Run a cell again; once the run says otherwise, it is seen."""
    outcome = cli("replay", out, ".hotflip-random-")
    assert outcome.code == 0, outcome.err
    assert "4 of 4" in outcome.out
    assert "reproduced" in outcome.out
    assert not list(out.parent.glob(".replay-*"))
    (cell,) = (out / "cells").glob("*.hotflip-random-*")
    lines = (cell / "samples.jsonl").read_text().splitlines()
    row = json.loads(lines[0])
    row["adversarial_prompt_ids"][3] += 1
    lines[0] = json.dumps(row)
    (cell / "samples.jsonl").write_text("\n".join(lines) + "\n")
    edit(
        cell / "record.json",
        *("samples", "sha256"),
        value=sha256_file(cell / "samples.jsonl"),
    )
    outcome = cli("replay", out, ".hotflip-random-")
    assert outcome.code == 1
    assert "3 of 4" in outcome.out
    assert "DIFFERS" in outcome.out


def test_a_notebook_gets_what_a_terminal_gets():
    taken = inspect.signature(attack).parameters
    shared = {x.name: x.default for x in command.params if x.name in taken}
    for name in ("examples", "flips", "seed", "prompt_tokens"):
        assert taken[name].default == shared[name]


def test_texts_and_a_model_in_memory_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = []
    options = {"examples": 4, "flips": 1, "limit": 1, "say": lines.append}
    model = tiny_model("gpt_neox")
    run = attack(model, tiny_tokenizer(), sentences(12, 60), device="cpu", **options)
    assert run.path.name == "attack-gpt_neox"
    assert len(run.samples) == 5
    assert any("hotflip" in line for line in lines)
    pairs = [(text[:90], text[90:]) for text in sentences(12, 60)]
    options["out"] = tmp_path / "pairs"
    run = attack(model, tiny_tokenizer(), pairs, device="cpu", **options)
    decoded = tiny_tokenizer().decode(run.samples.reference_ids[0])
    assert decoded.strip() in {reference.strip() for _, reference in pairs}
    told = run.report.methods
    lengths = r"of at most \d+ tokens, scored on their references of at most \d+ tokens"
    assert re.search(f" 4 prompts {lengths}, of test ", told)
    assert "The arm is baseline (no constraint). The training seed is 42." in told
    assert "commit none" not in told  # the checkout's, or nothing
    (main,) = (x for x in run.report.tables if x.key == "main")
    titles = [column.title for column in main.columns]
    assert titles[1:3] == ["params", "success"]  # nothing else was measured
    with pytest.raises(UsageError, match="needs its tokenizer"):
        attack(model, None, sentences(12, 60))


@pytest.mark.parametrize("family", ["gpt_neox", "t5"])
def test_a_suite_is_written_that_holds(cli, tmp_path, texts, family):
    model = save(tmp_path / "my model!", family)
    outcome = cli("new", "suite", model, texts, "--dir", tmp_path)
    assert outcome.code == 0
    path = tmp_path / "my-model.yaml"
    assert f"wrote {path}" in outcome.out
    assert validate_suite(path) == []
    assert cli("plan", path).code == 0
    smoke = cli("plan", path, "--profile", "smoke")
    assert (smoke.code, "a limit is set" in smoke.err) == (0, True)
    assert outcome.out.endswith(f" run {shlex.quote(str(path))} --profile smoke\n")
    assert cli("new", "suite", model, texts, "--dir", tmp_path).code == 2


def pairs(path, count=30):
    """Write pairs, the prompts of five of them longer than a prompt may be."""
    rows = [
        {"ask": text if i < 5 else text[:60], "answer": text[60:120]}
        for i, text in enumerate(sentences(count, 60))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pairs_get_their_prefix_and_it_is_said_what_is_cut(cli, tmp_path):
    model, file = save(tmp_path / "mine", "t5"), pairs(tmp_path / "pairs.jsonl", 120)
    fields = "--prompt", "ask", "--reference", "answer", "--prefix", "sum: "
    outcome = cli("new", "suite", model, file, *fields, "--dir", tmp_path)
    assert outcome.code == 0, outcome.err
    assert outcome.err == (
        "note: 5 of 120 prompts are longer than 64 tokens, and are cut there: "
        "`examples.prompt_tokens`, or --prompt-tokens of `harness attack`\n"
    )
    suite = tmp_path / "mine.yaml"
    resolved = load_experiment(suite, profile="smoke").suite
    test = resolved.corpora["test"]
    assert (test.prompt, test.reference, test.prefix) == ("ask", "answer", "sum: ")
    full = load_experiment(suite).suite.recovery
    assert resolved.recovery.tokens == 16 * full.batch_tokens < full.tokens
    for asked in (["new", "suite"], ["attack"]):
        refused = cli(*asked, model, file, "--prompt", "ask")
        told = f"error: {file}: prompt needs `reference` or `choices` beside it\n"
        assert (refused.code, refused.err) == (2, told)
    refused = cli("new", "attack", "mine", "--prefix", "sum: ", "--dir", tmp_path)
    assert (refused.code, "takes a name and no more" in refused.err) == (2, True)


def test_an_attack_sees_the_prefix_of_its_prompts(tmp_path):
    model, file = save(tmp_path / "mine", "t5"), pairs(tmp_path / "pairs.jsonl")
    fields, lines = {"prompt": "ask", "reference": "answer", "prefix": "sum: "}, []
    options = {"examples": 4, "flips": 1, "limit": 1, "say": lines.append}
    options["out"] = tmp_path / "out"
    options["prompt_tokens"] = 40
    run = attack(model, None, file, fields=fields, device="cpu", **options)
    assert lines[0].startswith("note: 5 of 30 prompts are longer than 40 tokens")
    assert run.samples.clean_prompt_ids.map(len).max() == 40
    decode = tiny_tokenizer(closed=True).decode
    for row in run.samples.itertuples():
        for ids in (row.clean_prompt_ids, row.adversarial_prompt_ids):
            assert decode(ids).startswith("sum:")  # its space is the next word's


@pytest.mark.parametrize("kind", ["text", "pairs"])
def test_texts_that_stand_twice_are_left_out(cli, tmp_path, kind):
    """Sets of examples share no text: else nothing would run."""
    model, file = save(tmp_path / "mine", "t5"), tmp_path / "texts.jsonl"
    rows = [json.loads(x) for x in pairs(file).read_text().splitlines()]
    if kind == "text":
        rows = [{"text": row["ask"]} for row in rows]
    twice = [*rows[:20], rows[3], rows[3], *rows[20:]]
    file.write_text("".join(json.dumps(row) + "\n" for row in twice))
    fields = () if kind == "text" else ("--prompt", "ask", "--reference", "answer")
    outcome = cli("new", "suite", model, file, *fields, "--dir", tmp_path)
    kept = tmp_path / "mine.distinct.jsonl"
    told = f"note: 2 texts are copies of others, left out: the rest is in {kept}\n"
    assert outcome.err.startswith(told)
    written = [[*json.loads(x).values()] for x in kept.read_text().splitlines()]
    assert written == [[*row.values()] for row in rows]
    suite = load_experiment(tmp_path / "mine.yaml").suite
    assert {x.path for x in suite.corpora.values()} == {str(kept)}
    assert file.read_text().count("\n") == 32  # what was given stays as it is


def test_what_cannot_be_attacked_is_said(tmp_path, texts):
    model = save(tmp_path / "mine", "gpt_neox")
    few = tmp_path / "few.txt"
    few.write_text("\n\n".join(sentences(20, 3)))
    with pytest.raises(
        UsageError, match=r"few\.txt: 0 of 20 documents have the 16 tok"
    ):
        attack(model, None, few)
    config = model / "config.json"
    known = json.loads(config.read_text())
    config.write_text(json.dumps({**known, "model_type": "mamba"}))
    with pytest.raises(UsageError, match="the family 'mamba', which no model plugin"):
        attack(model, None, texts)
    with pytest.raises(UsageError, match="it has no config"):
        attack(tmp_path, None, texts)
