"""A real suite, as small as one can be: two arms that train, three attacks, metrics."""

from __future__ import annotations

from pathlib import Path

from tests.tiny_inputs import write_inputs

SUITE = """
name: chaos
models:
  tiny: {adapter: pythia, path: model}
arms:
  baseline: {}
  softplus: {constraint: softplus}
corpora:
  train: {path: text.jsonl, slice: ":40"}
  search: {path: text.jsonl, slice: "40:50"}
  validation: {path: text.jsonl, slice: "50:60"}
  test: {path: text.jsonl, slice: "60:"}
recovery:
  corpus: train
  validation: validation
  tokens: 512
  context: 32
  batch_tokens: 128
  micro_batch: 4
  evaluate_every: 2
  evaluation_tokens: 64
  checkpoint_every: 1
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
diagnostics: none
batch_size: 8
seeds: [7]
"""


def write_suite(path: Path) -> int:
    """Write the suite, and its model and text beside it; return 0."""

    folder = path.parent
    write_inputs(folder, 80)
    path.write_text(SUITE)
    return 0
