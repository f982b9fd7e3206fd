"""The model and the text that the tiny suites of tests name."""

from __future__ import annotations

import json
from pathlib import Path


def write_inputs(folder: Path, lines: int) -> None:
    """Write ``model`` and ``text.jsonl``, of so many lines, into a folder."""
    import numpy as np

    from harness.testing import TEXT, tiny_model, tiny_tokenizer

    tiny_model(num_hidden_layers=2).save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    rng, words = np.random.default_rng(0), TEXT.split()
    rows = [{"text": " ".join(rng.permutation(words * 2))} for _ in range(lines)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "text.jsonl").write_text(text)
