"""Train a random model for a while, so that its losses differ as a real model's do.

On random weights the losses of all candidates lie within what rounding changes, and no
attack moves them. A minute of training is no language model, but mends both.
"""

from __future__ import annotations

import time
from typing import Any

import torch

ROWS, TOKENS, WARM_UP = 32, 256, 20


def train(model: Any, tokenizer: Any, text: str, seconds: float, device: str) -> None:
    """Train on windows of a text, in bfloat16 with float32 weights; print the loss."""
    ids = torch.tensor(tokenizer(text, verbose=False)["input_ids"], device=device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=2e-4, betas=(0.9, 0.95), fused=device == "cuda"
    )
    model.to(device).train()
    draw = torch.Generator(device).manual_seed(0)
    within, steps = torch.arange(TOKENS, device=device), 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        for group in optimizer.param_groups:
            group["lr"] = 2e-4 * min(1.0, (steps + 1) / WARM_UP)
        first = torch.randint(
            len(ids) - TOKENS, (ROWS, 1), generator=draw, device=device
        )
        batch = ids[first + within]
        with torch.autocast(device, torch.bfloat16):
            loss = model(batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
        if steps % 8 == 0:
            loss.item()  # waits for the device, so that the clock is right
    print(f"trained: {steps} steps of {ROWS} x {TOKENS} tokens, loss {loss.item():.2f}")
    model.eval().zero_grad(set_to_none=True)
