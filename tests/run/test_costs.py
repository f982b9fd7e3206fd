"""What a plan says that units cost, against what their records say afterwards."""

import json

import pytest

from harness.records import read_record
from harness.testing import TEXT, tiny_model, tiny_tokenizer

SUITE = """
name: tiny
models:
  tiny: {adapter: ADAPTER, path: model}
arms:
  baseline: {}
corpora:
  train: {CORPUS, slice: ":40"}
  search: {CORPUS, slice: "40:50"}
  validation: {CORPUS, slice: "50:60"}
  test: {CORPUS, slice: "60:"}
recovery: {corpus: train, validation: validation, tokens: 512, context: 32,
  batch_tokens: 128, micro_batch: 4, evaluate_every: 2}
metrics:
  perplexity: {corpus: test, context: 32}
examples:
  test: {corpus: test, count: 5}
  search: {corpus: search, count: 4}
  validation: {corpus: validation, count: 3}
  prompt_tokens: 10
  reference_tokens: 6
attacks:
  hotflip: {flips: 2, candidates: 12}
  uat: {trigger_tokens: 2, candidates: 6, sweeps: 1, restarts: 2, search_prompts: 4,
    validation_prompts: 3}
  random: {match: hotflip}
controls: none
seeds: [7]
"""
TEXTS = ("pythia", "gpt_neox", "path: text.jsonl")
PAIRS = ("t5", "t5", "path: text.jsonl, prompt: text, reference: summary")
CLOSE = {"train": 0.1, "metrics": 0.1, "attack": 0.15, "rescore": 0.5}
"""Near ties are scored again, and a prompt that is held at several checkpoints is
scored once: no plan knows how many."""


@pytest.mark.parametrize("kind", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_a_plan_says_the_flops_that_records_say(cli, tmp_path, kind):
    import numpy as np

    adapter, family, corpus = kind
    tiny_model(family).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    rng, words = np.random.default_rng(0), TEXT.split()
    lines = [
        {
            "text": " ".join(rng.permutation(words * 2)),
            "summary": " ".join(rng.permutation(words)),
        }
        for _ in range(80)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "text.jsonl").write_text(text)
    suite, out = tmp_path / "tiny.yaml", tmp_path / "run"
    suite.write_text(SUITE.replace("ADAPTER", adapter).replace("CORPUS", corpus))

    planned = json.loads(cli("plan", suite, "--out", out, "--json").out)
    assert cli("run", suite, "--out", out).code == 0

    for unit in planned["units"]:
        record = read_record(out / f"{unit['kind']}s" / unit["id"] / "record.json")
        found = {p: c.compared_flops for p, c in record.ledger.kept.items()}
        wanted = {phase: cost["flops"] for phase, cost in unit["cost"].items()}
        for phase in {"train", "metrics", "attack", "rescore"} & (
            found.keys() | wanted.keys()
        ):
            close = pytest.approx(found.get(phase, 0), rel=CLOSE[phase])
            assert wanted.get(phase, 0) == close, (unit["id"], phase)
