"""Models under a constraint, and what trains them in two parts."""

import pytest
import torch

from harness.base import Stopped
from harness.models import RecoverySection
from harness.testing import tiny_model
from harness_plugins.models.causal_lm import CausalLM
from harness_plugins.models.pythia import Pythia
from harness_plugins.models.t5 import T5Models

RECOVERY = {
    "corpus": "train",
    "validation": "held-out",
    "tokens": 1500,
    "context": 32,
    "batch_tokens": 256,
    "micro_batch": 4,
    "learning_rate": 1e-3,
    "evaluate_every": 2,
    "evaluation_tokens": 640,
    "checkpoint_every": 2,
}


def recovery(**changes):
    """Return the section of a recovery of six steps, with a checkpoint at every other.

    It trains on the corpus `train` and evaluates on `held-out`.
    """
    return RecoverySection(**{**RECOVERY, **changes})


def adapter_of(family):
    """Return the adapter of a family of models, as transformers calls it."""
    plugin = {"gpt_neox": Pythia, "t5": T5Models}.get(family, CausalLM)
    return plugin(plugin.Options(path="unused"))


def arm(family, constraint, **changes):
    """Return an adapter, a tiny model that is constrained, and the constraint."""
    adapter, model = adapter_of(family), tiny_model(family, **changes)
    constraint.apply(adapter, model, 0)
    return adapter, model, constraint


def whole_and_in_parts(place, constraint):
    """Train an arm at once, and stopped after step 3; both have to be the same.

    Returns the model, the lines of the first and those of the training that went on.
    """
    lines, first, again = [], [], []
    whole, expected = place(constraint, "whole", log=lines.append)
    with pytest.raises(Stopped):
        place(
            constraint,
            "parts",
            log=first.append,
            should_stop=lambda: first[-1]["step"] == 3,
        )
    parts, summary = place(constraint, "parts", log=again.append)

    states = whole.state_dict(), parts.state_dict()
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name]), name
    assert summary == expected.model_copy(update={"restarts": 1})
    return whole, lines, again
