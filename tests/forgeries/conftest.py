"""A finished run to forge, made once."""

import json

import numpy as np
import pytest

from harness.cli import main
from harness.testing import TEXT, tiny_model, tiny_tokenizer

SUITE = """
name: tiny
models:
  tiny: {adapter: pythia, path: model}
arms:
  baseline: {}
  monotone: {constraint: softplus, start: abs}
corpora:
  train: {path: text.jsonl, slice: ":40"}
  held_out: {path: text.jsonl, slice: "50:60"}
  test: {path: text.jsonl, slice: "60:"}
recovery:
  {corpus: train, validation: held_out, tokens: 512, context: 32, batch_tokens: 128,
   micro_batch: 4}
metrics:
  perplexity: {corpus: test, context: 32}
examples:
  test: {corpus: test, count: 6}
  prompt_tokens: 10
  reference_tokens: 6
attacks:
  hotflip: {flips: 2, candidates: 8}
  random: {match: hotflip}
  transfer: {of: hotflip}
controls: none
seeds: [7, 8]
"""


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Run a tiny suite to its end, with its own replay; return the run folder."""
    place = tmp_path_factory.mktemp("forgeries")
    tiny_model(num_hidden_layers=2).save_pretrained(place / "model")
    tiny_tokenizer().save_pretrained(place / "model")
    rng, words = np.random.default_rng(0), TEXT.split()
    lines = [{"text": " ".join(rng.permutation(words * 2))} for _ in range(80)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (place / "text.jsonl").write_text(text)
    (place / "tiny.yaml").write_text(SUITE)
    run = place / "runs" / "tiny"
    with pytest.raises(SystemExit) as ended:
        main(["run", str(place / "tiny.yaml"), "--out", str(run)])
    assert ended.value.code == 0
    return run
