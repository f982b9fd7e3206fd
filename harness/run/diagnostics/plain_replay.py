"""Score rows of samples with plain transformers: a script, run in a fresh process.

It reads a JSON list of jobs from standard input, one for each frozen subject, and
prints the largest difference from the recorded losses for each cell. It takes nothing
of the harness, but for the activations of a subject that plain transformers does not
know: where it needs those, it says so.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Do all jobs, and print one object: an answer for each cell."""
    answers: dict[str, Any] = {}
    for job in json.load(sys.stdin):
        try:
            model, plain = _load(job["model"])
        except Exception as error:  # noqa: BLE001 - the answer is that it cannot
            failed = {"error": f"cannot be loaded: {error}"}
            answers.update({cell["id"]: failed for cell in job["cells"]})
            continue
        for cell in job["cells"]:
            answers[cell["id"]] = _replayed(model, plain, cell)
    print(json.dumps(answers))


def _load(folder: str) -> tuple[Any, bool]:
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
    )

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    kind = AutoModelForCausalLM
    if config.is_encoder_decoder:
        kind = AutoModelForSeq2SeqLM
    known: dict[str, Any] = {"dtype": torch.float32, "local_files_only": True}
    try:
        return kind.from_pretrained(folder, **known).eval(), True
    except KeyError:
        from harness.models import register_activations

        register_activations()
        return kind.from_pretrained(folder, **known).eval(), False


def _replayed(model: Any, plain: bool, cell: dict[str, Any]) -> dict[str, Any]:
    lines = Path(cell["samples"]).read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["status"] != "error"]
    every = max(1, len(rows) // cell["rows"])
    apart = [
        abs(_loss(model, row[f"{kind}_prompt_ids"], row["reference_ids"]) - expected)
        for row in rows[::every][: cell["rows"]]
        for kind, expected in (
            ("clean", row["clean_loss"]),
            ("adversarial", row["adversarial_loss"]),
        )
    ]
    return {"passes": len(apart), "largest": max(apart, default=None), "plain": plain}


def _loss(model: Any, prompt: list[int], reference: list[int]) -> float:
    import torch

    target = torch.tensor(reference)
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            ids = torch.tensor([prompt])
            logits = model(input_ids=ids, labels=target[None]).logits[0]
        else:
            ids = torch.tensor([prompt + reference])
            logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    return float(torch.nn.functional.cross_entropy(logits, target))


if __name__ == "__main__":
    main()
