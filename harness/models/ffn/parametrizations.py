"""Non-negative weights by parametrization: the model trains V, and uses W = f(V) > 0.

V, and with it its gradient and the optimizer's state, is float32 whatever happens to
the model around it: in bfloat16, steps of AdamW up to 1e-2 vanish, and the inverse of
softplus keeps 15 distinct values. The inverses are computed in float64.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrize import (
    ParametrizationList,
    is_parametrized,
    register_parametrization,
)

from harness.api import Projection
from harness.models.devices import local, spread_like, spread_rows

SMALLEST_WEIGHT = 1e-6
"""The inverses take no smaller weight: V would go to -infinity."""


class NonNegative(nn.Module):
    """A map from all real numbers to the positive ones, elementwise."""

    def __init__(self) -> None:
        super().__init__()
        self.dtype = torch.float32

    @abstractmethod
    def weight_of(self, v: torch.Tensor) -> torch.Tensor:
        """Compute W = f(V)."""

    @abstractmethod
    def inverse(self, w: torch.Tensor) -> torch.Tensor:
        """Compute V of W > 0, in float64."""

    @abstractmethod
    def slope(self, w: torch.Tensor) -> torch.Tensor:
        """Return about how far W moves for a small step of V."""

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        """Return the effective weight, in the model's precision."""
        return self.weight_of(v).to(self.dtype)

    def right_inverse(self, w: torch.Tensor) -> torch.Tensor:
        """Return V in float32; weights below `SMALLEST_WEIGHT` are raised to it."""
        return self.inverse(w.double().clamp(min=SMALLEST_WEIGHT)).float()


class Softplus(NonNegative):
    """W = log(1 + exp(V))."""

    def weight_of(self, v: torch.Tensor) -> torch.Tensor:
        return functional.softplus(v)

    def inverse(self, w: torch.Tensor) -> torch.Tensor:
        # log(exp(w) - 1) without its cancellation, and without overflow.
        return w + (-torch.expm1(-w)).log()

    def slope(self, w: torch.Tensor) -> torch.Tensor:
        return w  # 1 - exp(-w), to first order


class Exponential(NonNegative):
    """W = exp(V)."""

    def weight_of(self, v: torch.Tensor) -> torch.Tensor:
        return v.exp()

    def inverse(self, w: torch.Tensor) -> torch.Tensor:
        return w.log()

    def slope(self, w: torch.Tensor) -> torch.Tensor:
        return w


class Square(NonNegative):
    """W = V^2."""

    def weight_of(self, v: torch.Tensor) -> torch.Tensor:
        return v.square()

    def inverse(self, w: torch.Tensor) -> torch.Tensor:
        return w.sqrt()

    def slope(self, w: torch.Tensor) -> torch.Tensor:
        return 2 * w.sqrt()


class SignSplit(Softplus):
    """W = softplus(V[0]) - softplus(V[1]): the difference of two positive matrices.

    A network W2 s(W1 z) with a non-decreasing s is then [I, -I] G([z; -z]), where the
    core G, twice as wide, has no negative weight.
    """

    def __init__(self, lift: float) -> None:
        super().__init__()
        self.lift = lift
        """What is added to both parts at first, so that V is finite where W is 0."""

    def weight_of(self, v: torch.Tensor) -> torch.Tensor:
        positive, negative = super().weight_of(v).unbind()
        return positive - negative

    def right_inverse(self, w: torch.Tensor) -> torch.Tensor:
        """Return V [2, out, in] in float32."""
        parts = torch.stack([w.double().clamp(min=0), (-w.double()).clamp(min=0)])
        return self.inverse(parts + self.lift).float()

    def slope(self, w: torch.Tensor) -> torch.Tensor:
        # The mean of the two parts.
        return w.abs().div(2).add(self.lift)


PARAMETRIZATIONS: dict[str, Callable[[], NonNegative]] = {
    "softplus": Softplus,
    "exp": Exponential,
    "square": Square,
}
"""The maps by the names that suites use."""


class _Float32List(ParametrizationList):
    """A parametrization list whose V stays float32 when the model is cast."""

    def _apply(
        self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True
    ) -> _Float32List:
        def keep_dtype(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            same = moved.dtype == tensor.dtype
            return moved if same else tensor.to(moved.device)

        function = cast(NonNegative, self[0])
        probe = torch.empty(0, dtype=function.dtype, device=self.original.device)
        function.dtype = fn(probe).dtype
        super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]
        return self


def parametrize(projection: Projection, function: NonNegative) -> None:
    """Train V instead of the weight of a projection (float32), from now on."""
    module = projection.module
    register_parametrization(module, "weight", function)
    parametrizations: Any = module.parametrizations
    # As torch itself does with a parametrized module: its class is what changes.
    parametrizations.weight.__class__ = _Float32List


def parametrized_weights(
    model: nn.Module,
) -> Iterator[tuple[NonNegative, nn.Parameter]]:
    """Yield the map and the V of every constrained matrix."""
    for module in model.modules():
        if _is_non_negative(module):
            parametrizations: Any = module.parametrizations
            yield parametrizations.weight[0], parametrizations.weight.original


def _is_non_negative(module: nn.Module) -> bool:
    if not is_parametrized(module, "weight"):
        return False
    parametrizations: Any = module.parametrizations
    return isinstance(parametrizations.weight[0], NonNegative)


class EffectiveWeights:
    """The weights W = f(V) of a model in training, as plain parameters.

    W is computed once a step, however many passes the step has, and its gradient is
    taken to V once. In between the model is one without parametrizations: nothing of it
    costs more than in an unconstrained model.
    """

    def __init__(self, model: nn.Module) -> None:
        """Find the constrained matrices; the model is not changed yet."""
        self.trained = list(model.parameters())
        """All parameters that are trained, each V in the place of its W."""
        self.names = set()
        """What the model calls each W."""
        self._matrices: list[tuple[Any, Any]] = []
        for path, module in model.named_modules():
            if _is_non_negative(module):
                parametrizations: Any = module.parametrizations
                self.names.add(f"{path}.weight")
                self._matrices.append((module, parametrizations.weight))

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Let W be parameters of the model inside, beside V; no longer after it."""
        classes = [type(module) for module, _ in self._matrices]
        for module, listed in self._matrices:
            module.__class__ = type(module).__mro__[1]  # what torch made its own from
            with torch.no_grad():
                module.register_parameter("weight", nn.Parameter(listed()))
        try:
            yield
        finally:
            for (module, _), own in zip(self._matrices, classes, strict=True):
                del module.weight
                module.__class__ = own

    @property
    def raw(self) -> list[nn.Parameter]:
        """Each V."""
        return [listed.original for _, listed in self._matrices]

    def spread(self) -> None:
        """Spread each V over devices as its W is."""
        for module, listed in self._matrices:
            listed.original = spread_rows(listed.original, module.weight)

    def compute(self) -> None:
        """Compute W anew, in place, after V has changed."""
        with torch.no_grad():
            for module, listed in self._matrices:
                local(module.weight).copy_(listed[0](local(listed.original)))

    def move_gradients(self) -> None:
        """Take the gradient of each W to its V, by the chain rule."""
        for module, listed in self._matrices:
            gradient, module.weight.grad = module.weight.grad, None
            if gradient is not None:
                v = local(listed.original).detach().requires_grad_()
                with torch.enable_grad():
                    (own,) = torch.autograd.grad(listed[0](v), v, local(gradient))
                listed.original.grad = spread_like(own, listed.original)


def scaled_groups(
    groups: Sequence[dict[str, Any]], model: nn.Module, rate: float
) -> list[dict[str, Any]]:
    """Give each V an optimizer group: a step of it moves W by about W times as much.

    Decay of V would pull the weights towards f(0), not towards 0: there is none.
    """
    scaled = []
    for function, v in parametrized_weights(model):
        scale = function.slope(function(v.detach())).mean().item()
        scaled.append({"params": [v], "lr": rate / scale, "weight_decay": 0.0})
    own = {id(v) for _, v in parametrized_weights(model)}
    for group in groups:
        group["params"] = [p for p in group["params"] if id(p) not in own]
    return [*groups, *scaled]
