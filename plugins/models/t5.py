"""Encoder-decoder models of the T5 family."""

from __future__ import annotations

from harness import hookimpl
from harness.api import Paper
from harness.models import T5, CheckpointAdapter


class T5Models(CheckpointAdapter):
    """Loads T5 v1.0, T5 v1.1 and FLAN-T5."""

    name = "t5"
    papers = (
        Paper(
            "Raffel et al. 2020",
            "Exploring the Limits of Transfer Learning with a Unified Text-to-Text "
            "Transformer",
            "https://arxiv.org/abs/1910.10683",
        ),
        Paper(
            "Chung et al. 2022",
            "Scaling Instruction-Finetuned Language Models",
            "https://arxiv.org/abs/2210.11416",
        ),
    )
    example = {"path": "google/flan-t5-base"}
    families = {T5.model_type: T5}


@hookimpl
def register_models() -> list[type[CheckpointAdapter]]:
    """Offer the adapter."""
    return [T5Models]
