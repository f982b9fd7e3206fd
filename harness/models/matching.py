"""Models brought to a stated loss: weights between others, and the losses compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.api import ArmContext, CostContext
from harness.base import CellError
from harness.data import Example
from harness.records import Cost, Estimate, bootstrap_mean, paired_difference

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel


JUDGED_DOCUMENTS = 500
"""Documents that a match is judged by, where the corpora have as many."""
_FITTED_AT_LEAST = 64
"""Documents that it is fitted to, for there to be `JUDGED_DOCUMENTS` others."""
FITTED, _JUDGED = "validation", "judged"
"""The examples that a match is fitted to, by their name in its results."""

Parts = Mapping[str, Sequence[Example]]
Losses = Mapping[str, "NDArray[np.float64]"]


def parts_to_match(context: ArmContext) -> Parts:
    """Split examples into those tested, those fitted to and those judged by.

    At least 500 documents judge where at least 64 are left to fit to; else each gets
    every other document, with all examples of it. Raises CellError where there are
    none.
    """
    apart = context.apart()
    documents = list(dict.fromkeys(example.document_id for example in apart))
    judged, fitted = documents[:JUDGED_DOCUMENTS], documents[JUDGED_DOCUMENTS:]
    if len(fitted) < _FITTED_AT_LEAST:
        judged, fitted = documents[::2], documents[1::2]
    if not fitted:
        raise CellError("there is no text apart from the test examples to match on")
    parts = {FITTED: set(fitted), _JUDGED: set(judged)}
    return {"test": context.examples().test} | {
        name: [example for example in apart if example.document_id in own]
        for name, own in parts.items()
    }


def matching_cost(context: CostContext, tried: int) -> Cost:
    """Return the cost of a match that tries so many weights, with all documents."""
    fitted = judged = JUDGED_DOCUMENTS
    passes = 3 * (fitted + judged) + tried * fitted
    return context.shape.forward(passes, *context.pair)


def judged_losses(parts: Parts, arm: Losses, match: Losses) -> list[dict[str, Any]]:
    """Return what verdicts read: the losses of both on each example that judges."""
    rows = zip(
        parts[_JUDGED], arm[_JUDGED].tolist(), match[_JUDGED].tolist(), strict=True
    )
    return [
        {"document": x.id, "unit": x.unit, "arm_loss": y, "match_loss": z}
        for x, y, z in rows
    ]


def compare_all(parts: Parts, own: Losses, others: Losses) -> dict[str, Estimate]:
    """Estimate what `compare_losses` does, over the examples of each part."""
    found: dict[str, Estimate] = {}
    for name, examples in parts.items():
        found |= compare_losses(name, examples, own[name], others[name])
    return found


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
