"""A tiny suite that runs in seconds."""

import pytest

from tests.tiny_inputs import write_inputs

SUITE = """
name: tiny
models:
  tiny: {adapter: pythia, path: model}
arms:
  baseline: {}
  gauge: {constraint: softplus, start: gauge}
corpora:
  train: {path: text.jsonl, slice: ":40"}
  search: {path: text.jsonl, slice: "40:50"}
  validation: {path: text.jsonl, slice: "50:60"}
  test: {path: text.jsonl, slice: "60:"}
recovery: {corpus: train, tokens: 512, context: 32, batch_tokens: 128, micro_batch: 4}
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
  uat: {trigger_tokens: 2, candidates: 6, sweeps: 1, restarts: 2}
  random: {match: hotflip}
controls: none
seeds: [7]
"""


@pytest.fixture
def suite(tmp_path):
    """Write a tiny suite with its model and text; return its path."""

    write_inputs(tmp_path, 80)
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE)
    return path
