"""Encoder-decoder models of the T5 family."""

from __future__ import annotations

from harness import hookimpl
from harness.models import T5, CheckpointAdapter


class T5Models(CheckpointAdapter):
    """Loads T5 v1.0, T5 v1.1 and FLAN-T5."""

    name = "t5"
    families = {T5.model_type: T5}


@hookimpl
def register_models() -> list[type[CheckpointAdapter]]:
    """Offer the adapter."""
    return [T5Models]
