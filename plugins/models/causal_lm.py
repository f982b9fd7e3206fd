"""Causal language models of several families, by their configuration."""

from __future__ import annotations

from harness import hookimpl
from harness.api import Paper
from harness.models import GPT2, GPT_NEO, LLAMA, OPT, QWEN2, CheckpointAdapter


class CausalLM(CheckpointAdapter):
    """Loads OPT, GPT-Neo, GPT-2, Llama and Qwen2."""

    name = "causal_lm"
    papers = (
        Paper(
            "Zhang et al. 2022",
            "OPT: Open Pre-trained Transformer Language Models",
            "https://arxiv.org/abs/2205.01068",
        ),
        Paper(
            "Black et al. 2021",
            "GPT-Neo: Large Scale Autoregressive Language Modeling with Mesh-"
            "Tensorflow",
            "https://doi.org/10.5281/zenodo.5297715",
        ),
        Paper(
            "Radford et al. 2019", "Language Models are Unsupervised Multitask Learners"
        ),
        Paper(
            "Touvron et al. 2023",
            "LLaMA: Open and Efficient Foundation Language Models",
            "https://arxiv.org/abs/2302.13971",
        ),
        Paper(
            "Yang et al. 2024",
            "Qwen2 Technical Report",
            "https://arxiv.org/abs/2407.10671",
        ),
    )
    example = {"path": "facebook/opt-1.3b"}
    families = {f.model_type: f for f in (OPT, GPT_NEO, GPT2, LLAMA, QWEN2)}


@hookimpl
def register_models() -> list[type[CheckpointAdapter]]:
    """Offer the adapter."""
    return [CausalLM]
