"""What all tests share: one thread, no network, and the data beside the project."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before any library reads them. Two threads in each of two workers on two cores would
# be slower than one, and a test that reaches for the network must fail at once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.pop("HARNESS_PLUGINS", None)
os.environ.pop("HARNESS_STORE", None)

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.cli import main

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder with real texts and models; skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data: {SHARED} is absent")
    return SHARED


@dataclass(frozen=True)
class Outcome:
    """What a command line did."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Return a function that runs ``harness`` with arguments, in this process."""

    def run(*args: object) -> Outcome:
        with pytest.raises(SystemExit) as exited:
            main([*map(str, args)])
        captured = capsys.readouterr()
        return Outcome(exited.value.code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def example_plugin() -> Path:
    """Return the file of a real plugin with an attack, ``rotate``."""
    return HERE / "example_plugin" / "harness_example.py"


TEXT = "the cat sat on the mat; the dog ate the other cat, and then that mat. "
SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt_neox": {**SIZES, "intermediate_size": 64},
    "opt": {**SIZES, "word_embed_proj_dim": 16, "ffn_dim": 64},
    "gpt_neo": {
        **SIZES,
        "num_layers": 2,
        "num_heads": 4,
        "intermediate_size": 64,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
    },
    "gpt2": {
        "vocab_size": 320,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 128,
    },
    "llama": {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2},
    "qwen2": {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2},
}


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    """Run the test for every family of models: the name is its `model_type`."""
    return str(request.param)


@pytest.fixture(scope="session")
def tiny_model() -> "Callable[..., PreTrainedModel]":
    """Return a function that makes a small random model of a family.

    Its embedding has more rows than `tiny_tokenizer` has tokens; keyword arguments
    change the configuration, and `seed` the weights.
    """

    def make(family: str = "gpt_neox", *, seed: int = 0, **changes: Any) -> Any:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        sizes = {**FAMILIES[family], **changes}
        config = AutoConfig.for_model(family, **sizes, initializer_range=0.2)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return AutoModelForCausalLM.from_config(config).eval()

    return make


@pytest.fixture(scope="session")
def tiny_tokenizer() -> "PreTrainedTokenizerBase":
    """Return a byte-level tokenizer of 282 tokens; ``<|endoftext|>`` is special."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>"
    )
