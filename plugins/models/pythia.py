"""Pythia and its relatives: GPT-NeoX, Dolly v2."""

from __future__ import annotations

from harness import hookimpl
from harness.api import Paper
from harness.models import GPT_NEOX, CheckpointAdapter


class Pythia(CheckpointAdapter):
    """Loads models of the GPT-NeoX family: Pythia, Dolly v2, GPT-NeoX-20B."""

    name = "pythia"
    papers = (
        Paper(
            "Biderman et al. 2023",
            "Pythia: A Suite for Analyzing Large Language Models Across Training "
            "and Scaling",
            "https://arxiv.org/abs/2304.01373",
        ),
        Paper(
            "Black et al. 2022",
            "GPT-NeoX-20B: An Open-Source Autoregressive Language Model",
            "https://arxiv.org/abs/2204.06745",
        ),
    )
    example = {"path": "./my-model"}
    families = {GPT_NEOX.model_type: GPT_NEOX}


@hookimpl
def register_models() -> list[type[CheckpointAdapter]]:
    """Offer the adapter."""
    return [Pythia]
