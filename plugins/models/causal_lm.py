"""Causal language models of several families, by their configuration."""

from __future__ import annotations

from harness import hookimpl
from harness.models import GPT2, GPT_NEO, LLAMA, OPT, QWEN2, CheckpointAdapter


class CausalLM(CheckpointAdapter):
    """Loads OPT, GPT-Neo, GPT-2, Llama and Qwen2."""

    name = "causal_lm"
    families = {f.model_type: f for f in (OPT, GPT_NEO, GPT2, LLAMA, QWEN2)}


@hookimpl
def register_models() -> list[type[CheckpointAdapter]]:
    """Offer the adapter."""
    return [CausalLM]
