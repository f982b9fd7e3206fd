"""AdamW with half the memory for its moments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from harness.models.devices import local, spread_like

_MOMENTS = ("exp_avg", "exp_avg_sq")


class LeanAdamW(torch.optim.AdamW):
    """AdamW that keeps its moments in bfloat16, and computes in float32.

    They are rounded at random, up or down with the chances that leave their mean as it
    is: to the nearest, a step's thousandth of the second moment would be lost.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Make a step, one parameter at a time, so that few moments are in float32."""
        assert closure is None  # nobody asks for the loss to be computed again
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)

    def _step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        own, state = local(parameter), self.state[parameter]
        on_cuda = own.device.type == "cuda"
        if not state:
            state["step"] = torch.zeros((), device=own.device if on_cuda else None)
            state |= {name: torch.zeros_like(parameter) for name in _MOMENTS}
        first, second = (local(state[name]).float() for name in _MOMENTS)
        adamw(
            [own],
            [local(parameter.grad)],  # type: ignore[arg-type]
            [first],
            [second],
            [],
            [state["step"]],
            fused=on_cuda,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        for name, moment in zip(_MOMENTS, (first, second), strict=True):
            state[name] = spread_like(rounded_at_random(moment), parameter)


def rounded_at_random(values: Tensor) -> Tensor:
    """Round float32 to bfloat16, up or down, so that the mean is what it was.

    bfloat16 has the upper half of float32's bits. A random number added to the lower
    half carries with the chance that the lower half says.
    """
    bits = values.view(torch.int32)
    bits = bits + torch.randint_like(bits, 2**16)
    return (bits & -(2**16)).view(torch.float32).bfloat16()
