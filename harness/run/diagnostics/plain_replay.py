"""Score rows of samples with plain transformers: a script, run in a fresh process.

It reads a JSON list of jobs from standard input, one for each frozen subject, and
prints the largest difference from the recorded losses for each cell. It takes nothing
of the harness, but for the activations of a subject that plain transformers does not
know: where it needs those, it says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

Ids = tuple[int, ...]


def main() -> None:
    """Do all jobs, and print one object: an answer for each cell."""
    _import_ahead()
    answers: dict[str, Any] = {}
    for job in json.load(sys.stdin):
        score = _scorer(job["model"], job.get("device", "cpu"))
        for cell in job["cells"]:
            samples = Path(cell["samples"]).read_bytes()
            digest = hashlib.sha256(samples).hexdigest()
            found = score(samples.decode("utf-8").splitlines(), cell["rows"])
            answers[cell["id"]] = {**found, "samples_sha256": digest}
    print(json.dumps(answers))


def _import_ahead() -> None:
    """Import what loading a model will, while the jobs are not known yet.

    What fails here is said where a model is loaded.
    """
    with contextlib.suppress(Exception):
        import torch  # noqa: F401
        from transformers import (  # noqa: F401
            AutoConfig,
            AutoModelForCausalLM,
            AutoModelForSeq2SeqLM,
        )


def _scorer(folder: str, device: str) -> Callable[[list[str], int], dict[str, Any]]:
    """Return what scores lines of samples, or says why the model is not there."""
    try:
        model, plain = _load(folder, device)
    except Exception as error:  # noqa: BLE001 - the answer is that it cannot
        failed = {"error": f"cannot be loaded: {error}"}
        return lambda lines, count: failed
    # Cells of a subject have clean prompts in common, and rows may have checkpoints.
    loss = cache(partial(_loss, model))
    return partial(_replayed, loss, plain)


def _load(folder: str, device: str) -> tuple[Any, bool]:
    """Return the model on the device, on the CPU where that has no room for it."""
    import torch

    model, plain = _read(folder)
    try:
        return model.to(device), plain
    except torch.OutOfMemoryError:
        return model.to("cpu"), plain


def _read(folder: str) -> tuple[Any, bool]:
    """Return the model, and whether plain transformers knows all of it."""
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


def _replayed(
    loss: Callable[[Ids, Ids], float], plain: bool, lines: list[str], count: int
) -> dict[str, Any]:
    """Score a few rows of a cell: clean, attacked, and attacked with less budget."""
    rows = [row for row in map(json.loads, lines) if row["status"] != "error"]
    every = max(1, len(rows) // count)
    chosen = rows[::every][:count]
    apart = [
        abs(loss(tuple(prompt), tuple(row["reference_ids"])) - expected)
        for row in chosen
        for prompt, expected in _scored(row)
    ]
    answer = {"rows": len(chosen), "passes": len(apart), "plain": plain}
    if not all(map(math.isfinite, apart)):
        return {**answer, "largest": None, "error": "a replayed loss is not finite"}
    return {**answer, "largest": max(apart, default=None)}


def _scored(row: dict[str, Any]) -> Iterator[tuple[list[int], float]]:
    yield row["clean_prompt_ids"], row["clean_loss"]
    for attacked in (row, *row.get("checkpoints", ())):
        if attacked["adversarial_prompt_ids"] is not None:
            yield attacked["adversarial_prompt_ids"], attacked["adversarial_loss"]


def _loss(model: Any, prompt: Ids, reference: Ids) -> float:
    import torch

    target = torch.tensor(reference, device=model.device)
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            ids = torch.tensor([prompt], device=model.device)
            logits = model(input_ids=ids, labels=target[None]).logits[0]
        else:
            ids = torch.tensor([prompt + reference], device=model.device)
            logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    return float(torch.nn.functional.cross_entropy(logits, target))


if __name__ == "__main__":
    main()
