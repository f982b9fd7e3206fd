"""The devices that a model is trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


def accelerator_for(device: torch.device, *, bf16: bool) -> Accelerator:
    """Return what knows of the processes of this training, and of its precision.

    accelerate keeps its first settings for the rest of the process, and would choose
    the device itself where there is one process.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    on_cpu = device.type == "cpu"
    state = PartialState(cpu=on_cpu)
    if state.num_processes == 1:
        state.device = device
    return Accelerator(cpu=on_cpu, mixed_precision="bf16" if bf16 else "no")


def clip(parameters: Sequence[nn.Parameter], most: float) -> Tensor:
    """Scale gradients so that their norm is at most `most`; return what it was."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = get_total_norm(gradients)
    clip_grads_with_norm_(parameters, most, norm)
    return norm
