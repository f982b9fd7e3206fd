"""Replay samples files with plain transformers: ``replay.py MODEL SAMPLES ...``.

Prints a line of JSON for every pair of a model and a file: the number of its lines and
the largest difference from the recorded losses.
Nothing of the harness is imported, on purpose.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


def loss(model, prompt, reference):
    ids = torch.tensor([prompt + reference])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(reference)))


def replay(folder, samples):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = [json.loads(line) for line in Path(samples).read_text().splitlines()]
    apart = [0.0]
    for row in rows:
        for kind in ("clean", "adversarial"):
            found = loss(model, row[f"{kind}_prompt_ids"], row["reference_ids"])
            apart.append(abs(found - row[f"{kind}_loss"]))
    return {"rows": len(rows), "largest_difference": max(apart)}


for folder, samples in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    print(json.dumps(replay(folder, samples)))
