"""A small model, its text, and a function that runs attacks of the zoo on it."""

import json
from pathlib import Path

import numpy as np
import pytest

from harness.cli import main
from harness.testing import TEXT, tiny_model, tiny_tokenizer

ZOO = Path(__file__).with_name("zoo.py")
SUITE = """
name: zoo
models:
  tiny: {adapter: pythia, path: model}
arms:
  baseline: {}
corpora:
  test: {path: text.jsonl}
examples:
  test: {corpus: test, count: 3}
  prompt_tokens: 8
  reference_tokens: 5
attacks: ATTACKS
controls: none
diagnostics: none
seeds: [7]
"""


class Place:
    """A folder with all that a suite needs."""

    def __init__(self, folder):
        self.folder = folder
        tiny_model(num_hidden_layers=2).save_pretrained(folder / "model")
        tiny_tokenizer().save_pretrained(folder / "model")
        rng, words = np.random.default_rng(0), TEXT.split()
        texts = [" ".join(rng.permutation(words * 2)) for _ in range(6)]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / "text.jsonl").write_text(lines)

    def command(self, name, attacks, *options, zoo=ZOO):
        """Write a suite with these attacks; return the arguments that run it."""
        suite, out = self.folder / f"{name}.yaml", self.folder / name
        suite.write_text(SUITE.replace("ATTACKS", json.dumps(attacks)))
        given = ["--plugins", str(zoo), "--device", "cpu", *options]
        return ["run", str(suite), "--out", str(out), *given]

    def run(self, name, attacks, *options, zoo=ZOO):
        """Run a suite with these attacks in this process; return the exit code."""
        with pytest.raises(SystemExit) as ended:
            main(self.command(name, attacks, *options, zoo=zoo))
        return ended.value.code

    def record(self, name, attack):
        """Return the record of an attack's cell, and its samples."""
        (folder,) = (self.folder / name).glob(f"cells/*.{attack}-????????")
        samples = folder / "samples.jsonl"
        rows = samples.read_text() if samples.exists() else None
        return json.loads((folder / "record.json").read_text()), rows


@pytest.fixture(scope="package")
def place(tmp_path_factory):
    """Return a folder with a model and its text."""
    return Place(tmp_path_factory.mktemp("zoo"))
