"""Comparison of the clean losses of two arms, as results of a derived arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.data import Example
from harness.records import Estimate, bootstrap_mean, paired_difference

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
    documents = [example.document_id for example in examples]
    unit = "nats/token"
    return {
        f"{name}_loss": bootstrap_mean(own, documents, unit=unit),
        f"{name}_loss_matched": bootstrap_mean(others, documents, unit=unit),
        f"{name}_difference": paired_difference(own, others, documents, unit=unit),
    }
