import pytest

from harness.base import Store
from harness.models import recover
from harness.testing import tiny_tokenizer
from tests.models.arms import adapter_of, tiny_model

CLOCK = {"seconds", "tokens_per_s", "peak_memory_bytes"}


@pytest.fixture
def timeless():
    """Return what leaves out of a training's lines all that differs from run to run."""
    return lambda lines: [
        {k: v for k, v in line.items() if k not in CLOCK} for line in lines
    ]


@pytest.fixture
def recovering(tmp_path):
    """Return a function that recovers a fresh model of a family, in a folder."""

    def run(family, constraint, section, corpora, work="work", seed=3, **more):
        adapter, model = adapter_of(family), tiny_model(family)
        constraint.apply(adapter, model, seed)
        recovered = recover(
            model,
            adapter,
            constraint,
            section,
            tokenizer=tiny_tokenizer(closed=family == "t5"),
            tokenizer_key="tiny",
            corpora=corpora,
            store=Store(tmp_path / "store"),
            seed=seed,
            work=tmp_path / work,
            device="cpu",
            **more,
        )
        return model, recovered

    return run
