"""Models under a constraint, as `certify` takes them."""

from harness.testing import tiny_model
from harness_plugins.models.causal_lm import CausalLM
from harness_plugins.models.pythia import Pythia
from harness_plugins.models.t5 import T5Models


def adapter_of(family):
    """Return the adapter of a family of models, as transformers calls it."""
    plugin = {"gpt_neox": Pythia, "t5": T5Models}.get(family, CausalLM)
    return plugin(plugin.Options(path="unused"))


def arm(family, constraint, **changes):
    """Return an adapter, a tiny model that is constrained, and the constraint."""
    adapter, model = adapter_of(family), tiny_model(family, **changes)
    constraint.apply(adapter, model, 0)
    return adapter, model, constraint
