"""Models brought to a stated loss: weights between others, and the losses compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.data import Example
from harness.records import Estimate, bootstrap_mean, paired_difference

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel


def compare_losses(
    name: str,
    examples: Sequence[Example],
    own: NDArray[np.float64],
    others: NDArray[np.float64],
) -> dict[str, Estimate]:
    """Estimate the mean of two clean losses [n] and of their difference, in nats/token.

    The results are ``<name>_loss``, ``<name>_loss_matched`` (of the other arm) and
    ``<name>_difference`` (the first minus the second, paired by example).
    """
    documents = [example.unit for example in examples]
    unit = "nats/token"
    return {
        f"{name}_loss": bootstrap_mean(own, documents, unit=unit),
        f"{name}_loss_matched": bootstrap_mean(others, documents, unit=unit),
        f"{name}_difference": paired_difference(own, others, documents, unit=unit),
    }


def bisect(
    value_at: Callable[[float], float],
    target: float,
    close: float,
    *,
    low: float = 0.0,
    high: float,
    steps: int,
) -> float:
    """Return where a rising value is within `close` of the target.

    Between `low`, where it is taken to be lower, and `high`, which is tried first.
    Where there is no such place among those tried, the nearest of them.
    """
    tried: dict[float, float] = {}
    place = high
    for _ in range(1 + steps):
        tried[place] = value_at(place)
        if abs(tried[place] - target) <= close:
            break
        if tried[place] < target:
            if place == high:
                break
            low = place
        else:
            high = place
        place = (low + high) / 2
    return min(tried, key=lambda place: (abs(tried[place] - target), place))


# --- weights ------------------------------------------------------------------------


def weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return copies of a model's parameters by name, on the CPU."""
    return {n: p.detach().cpu().clone() for n, p in model.named_parameters()}


def set_between(
    model: PreTrainedModel,
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    share: float,
) -> None:
    """Give a model weights between two others', a `share` (0 to 1) of the way.

    Where both ends are non-negative, what lies between them is too.
    """
    for name, parameter in model.named_parameters():
        first, last = start[name], end[name]
        between = last if share == 1 else first + share * (last - first)
        low, high = first.minimum(last), first.maximum(last)
        parameter.data.copy_(between.clamp(low, high))
