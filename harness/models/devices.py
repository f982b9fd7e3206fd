"""Training on several devices: a process for each, and its share of every step.

Each process takes its own blocks of a step. Without sharding each holds the whole
model, and gradients are averaged once a step; with full sharding, torch's `fully_shard`
spreads weights, gradients and the optimizer's state, and gathers weights a layer at a
time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.utils import get_total_norm

from harness.subject import Meter

_MOST_WAIT = timedelta(hours=6)
"""For another process: the first writes checkpoints, and each attacks other blocks.
One that died is noticed sooner, by the process that started it."""
_SPENT = (
    *("sequences_forward", "sequences_backward"),
    *("tokens_forward", "tokens_backward", "flops", "flops_whole"),
)


def accelerator_for(device: torch.device, *, bf16: bool) -> Accelerator:
    """Return what knows of the processes of this training, and of its precision.

    accelerate keeps its first settings for the rest of the process, and would choose
    the device itself where there is one process.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    on_cpu = device.type == "cpu"
    state = PartialState(cpu=on_cpu, timeout=_MOST_WAIT)
    if state.num_processes == 1:
        state.device = device
    return Accelerator(cpu=on_cpu, mixed_precision="bf16" if bf16 else "no")


def own_share(count: int, accelerator: Accelerator) -> slice:
    """Return which of a step's blocks are this process's; each has as many."""
    size = count // accelerator.num_processes
    start = size * accelerator.process_index
    return slice(start, start + size)


def average(tensors: Iterable[Tensor], accelerator: Accelerator) -> None:
    """Replace tensors by their means over all processes, in place."""
    each = list(tensors)
    if accelerator.num_processes == 1 or not each:
        return
    waiting = [distributed.all_reduce(tensor, async_op=True) for tensor in each]
    for work in waiting:
        work.wait()
    torch._foreach_div_(each, accelerator.num_processes)


def agreed(number: int, accelerator: Accelerator) -> int:
    """Return the largest number that any process has."""
    if accelerator.num_processes == 1:
        return number
    own = torch.tensor(int(number), device=accelerator.device)
    distributed.all_reduce(own, distributed.ReduceOp.MAX)
    return int(own)


def note_fullest(meter: Meter, accelerator: Accelerator) -> None:
    """Take note of the peak memory of the fullest device."""
    meter.observe_peak(agreed(meter.cost().peak_memory_bytes or 0, accelerator))


def of_all(meter: Meter, accelerator: Accelerator) -> Meter:
    """Return what all processes spent together."""
    if accelerator.num_processes == 1:
        return meter
    own = [getattr(meter, name) for name in _SPENT]
    every = torch.tensor(own, dtype=torch.float64, device=accelerator.device)
    distributed.all_reduce(every)
    together = Meter(meter.device)
    for name, number in zip(_SPENT, every.tolist(), strict=True):
        setattr(together, name, type(getattr(meter, name))(number))
    return together


def clip(parameters: Sequence[nn.Parameter], most: float) -> Tensor:
    """Scale gradients so that their norm is at most `most`; return what it was."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    own = [local(gradient) for gradient in gradients]
    norm = get_total_norm(own)
    if any(isinstance(gradient, DTensor) for gradient in gradients):
        norm.square_()
        distributed.all_reduce(norm)
        norm.sqrt_()
    torch._foreach_mul_(own, torch.clamp(most / (norm + 1e-6), max=1.0))
    return norm


# --- shards -------------------------------------------------------------------------


def shard(
    root: nn.Module,
    layers: Sequence[nn.Module],
    apart: set[nn.Parameter],
    accelerator: Accelerator,
) -> None:
    """Spread the parameters of a model over all processes, a layer at a time.

    They come to the device in parts, from where they are. Those that are kept `apart`
    stay as they are; all others become other objects.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    count = accelerator.num_processes
    mesh = init_device_mesh(accelerator.device.type, (count,))
    for module in (*layers, root):
        fully_shard(module, mesh=mesh, ignored_params=apart)


def spread_rows(matrix: nn.Parameter, like: Tensor) -> nn.Parameter:
    """Spread the last two dimensions of a tensor as a matrix is: by rows."""
    if not isinstance(like, DTensor):
        return matrix
    whole, rows = matrix.detach().to(like.device), [Shard(matrix.dim() - 2)]
    return nn.Parameter(distribute_tensor(whole, like.device_mesh, rows))


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor; of one that is not spread, all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def spread_like(part: Tensor, like: Tensor) -> Tensor:
    """Take a tensor for this process's part of one that is spread as another is."""
    if not isinstance(like, DTensor):
        return part
    return DTensor.from_local(
        part,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def full_tensor(tensor: Any) -> Any:
    """Return a tensor whole, on the CPU if it was spread; anything else as it is."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def placed_like(tensor: Any, like: Tensor) -> Any:
    """Spread a whole tensor as another one is; leave it where its shape is another."""
    if not isinstance(like, DTensor) or getattr(tensor, "shape", None) != like.shape:
        return tensor
    placed = tensor.to(like.device)
    return distribute_tensor(placed, like.device_mesh, like.placements)
