"""What constraints that read examples are given."""

import numpy as np
import pytest
import torch

from harness.api import ArmContext
from harness.data import Example, ExampleSets
from harness.testing import tiny_model, tiny_tokenizer
from tests.subject.plain import plain_loss


def losses(model, examples):
    """Score examples on a causal model, in plain torch."""
    found = [plain_loss(model, x.prompt_ids, x.reference_ids) for x in examples]
    return np.array(found)


@pytest.fixture(scope="session")
def arm_context():
    """Return a function that makes a context for constraints that read examples.

    The references are what the clean model itself would write, so any change harms it.
    """
    rng, model = np.random.default_rng(0), tiny_model()
    model.generation_config.eos_token_id = None
    greedy = {"do_sample": False, "max_new_tokens": 6, "pad_token_id": 0}
    ids = model.generate(torch.tensor(rng.integers(1, 240, (36, 8))), **greedy).numpy()
    examples = [Example(f"{i}", f"{i}", row[:8], row[8:]) for i, row in enumerate(ids)]
    sets = ExampleSets(test=examples[:8], validation=examples[8:20])

    def make(**changes):
        return ArmContext(
            seed=3,
            tokenizer=tiny_tokenizer(),
            examples=lambda: sets,
            apart=lambda: examples[8:],
            losses=losses,
            allowed=lambda: np.arange(1, 280),
            **changes,
        )

    return make
