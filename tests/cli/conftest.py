"""A small suite for the commands that read one."""

from pathlib import Path

import pytest

from harness.testing import tiny_model, tiny_tokenizer

SUITE = """
name: small
models:
  tiny: {adapter: pythia, path: ./model}
arms:
  baseline: {}
seeds: [1]
corpora:
  topics: {builtin: python-topics}
recovery: {corpus: topics, tokens: 1000, context: 100, batch_tokens: 1000}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Return a suite whose model is not there yet: `save_model` puts it there."""
    path = tmp_path / "small.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture
def save_model(tmp_path):
    """Return a function that saves the model that `suite` names."""

    def save() -> None:
        tiny_model("gpt_neox").save_pretrained(tmp_path / "model")
        tiny_tokenizer().save_pretrained(tmp_path / "model")

    return save
