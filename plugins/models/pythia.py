"""Pythia and its relatives: GPT-NeoX, Dolly v2."""

from __future__ import annotations

from harness import hookimpl
from harness.models import GPT_NEOX, CheckpointAdapter


class Pythia(CheckpointAdapter):
    """Loads models of the GPT-NeoX family: Pythia, Dolly v2, GPT-NeoX-20B."""

    name = "pythia"
    families = {GPT_NEOX.model_type: GPT_NEOX}


@hookimpl
def register_models() -> list[type[CheckpointAdapter]]:
    """Offer the adapter."""
    return [Pythia]
