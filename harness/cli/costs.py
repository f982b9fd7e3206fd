"""How costs are spelt: for `harness plan` and `harness status`."""

from __future__ import annotations

from collections.abc import Mapping

from harness.records import Cost, Phase


def flops_text(flops: float) -> str:
    """Return FLOPs as ``2.1e20``; ``--`` for none."""
    if not flops:
        return "--"
    mantissa, _, exponent = f"{flops:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def costs_document(costs: Mapping[Phase, Cost]) -> dict[str, object]:
    """Return costs by phase as JSON values, as records hold them."""
    return {phase: cost.model_dump(mode="json") for phase, cost in costs.items()}
