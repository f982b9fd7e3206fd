"""A finished run to forge, made once."""

import pytest

from harness.cli import main
from tests.tiny_inputs import write_inputs

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
    write_inputs(place, 80)
    (place / "tiny.yaml").write_text(SUITE)
    run = place / "runs" / "tiny"
    with pytest.raises(SystemExit) as ended:
        main(["run", str(place / "tiny.yaml"), "--out", str(run)])
    assert ended.value.code == 0
    return run
