"""What is frozen computes, bit for bit, what was trained."""

import os
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXMLP

import harness.models.freezing
from harness.base import CellError
from harness.models import freeze, frozen_meanwhile, load_frozen
from harness.models.freezing import plain_state
from harness.subject import Subject
from harness.testing import GATED_T5, tiny_model, tiny_tokenizer
from harness_plugins.constraints.softplus import Softplus
from tests.models.arms import arm

IDS = torch.tensor([[5, 9, 200, 31, 7, 7, 120, 44]])
KINDS = ["gpt2", "gpt_neo", "gpt_neox", "llama", "opt", "qwen2", "t5", "t5 v1.1"]


def constrained(kind="gpt_neox"):
    """Return a model whose feed-forward weights are softplus(V)."""
    changes = GATED_T5 if kind == "t5 v1.1" else {}
    return arm(kind.split()[0], Softplus(), **changes)[1].eval()


def logits_of(model):
    labels = {"labels": IDS} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=IDS, **labels).logits


@pytest.mark.transformers5
@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_subject_is_a_plain_folder_with_bitwise_equal_logits(tmp_path, kind):
    model, given = constrained(kind), tiny_tokenizer(closed="t5" in kind)
    expected = logits_of(model)
    freeze(model, given, tmp_path)

    classes = AutoModelForSeq2SeqLM if "t5" in kind else AutoModelForCausalLM
    plain = classes.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(logits_of(plain), expected)
    text = "the cat sat on the mat"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer(text)["input_ids"] == given(text)["input_ids"]
    start = plain.generation_config.decoder_start_token_id
    assert start == model.config.to_dict().get("decoder_start_token_id")


def test_what_is_frozen_is_used_while_it_is_brought_to_disk(tmp_path, monkeypatch):
    used, fsync, synced = threading.Event(), os.fsync, []

    def waiting(descriptor):
        assert used.wait(10)
        fsync(descriptor)
        synced.append(descriptor)

    monkeypatch.setattr(os, "fsync", waiting)
    with frozen_meanwhile(constrained(), tiny_tokenizer(), tmp_path) as (frozen, _):
        logits_of(frozen)
        used.set()
    assert synced


def test_freezing_leaves_the_model_trainable_as_it_was(tmp_path):
    model = constrained()
    names = [name for name, _ in model.named_parameters()]
    freeze(model, tiny_tokenizer(), tmp_path)
    assert [name for name, _ in model.named_parameters()] == names
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.transformers5
def test_a_frozen_subject_is_loaded_for_evaluation(tmp_path):
    freeze(constrained(), tiny_tokenizer(), tmp_path)
    model, tokenizer = load_frozen(tmp_path)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert tokenizer.is_fast


@pytest.mark.transformers5
@pytest.mark.filterwarnings("default")
def test_saving_a_parametrized_model_as_it_is_would_lose_its_weights(tmp_path):
    model = constrained()
    model.save_pretrained(tmp_path)
    again, report = AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    lost = {name for name in report["missing_keys"] if "dense" in name}
    assert len(lost) == 4  # in and out, of two layers, without an error
    assert not torch.equal(logits_of(again), logits_of(model))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["gpt_neox", "t5"])
def test_tied_embeddings_stay_tied(tmp_path, family, tied):
    model = tiny_model(family, tie_word_embeddings=tied)
    freeze(model, tiny_tokenizer(closed=family == "t5"), tmp_path)
    frozen, _ = load_frozen(tmp_path)
    one, other = frozen.get_input_embeddings(), frozen.get_output_embeddings()
    assert (one.weight is other.weight) is tied
    assert torch.equal(logits_of(frozen), logits_of(model))


def test_a_folder_that_computes_something_else_is_refused(tmp_path, monkeypatch):
    def half_folded(model):
        state = plain_state(model)
        return {name: state[name].half().float() for name in state}

    monkeypatch.setattr(harness.models.freezing, "plain_state", half_folded)
    with pytest.raises(CellError, match="computes other logits"):
        freeze(constrained(), tiny_tokenizer(), tmp_path)


def test_a_model_that_draws_at_random_is_frozen_and_read_all_the_same(
    tmp_path, monkeypatch
):
    """The same draws, the same logits: that it draws is for the diagnostics to say."""
    plain = GPTNeoXMLP.forward
    noisy = lambda self, x: plain(self, x) + torch.randn_like(x)  # noqa: E731
    monkeypatch.setattr(GPTNeoXMLP, "forward", noisy)
    freeze(tiny_model("gpt_neox"), tiny_tokenizer(), tmp_path)
    subject = Subject(*load_frozen(tmp_path))
    one, again = subject.exact_losses([np.arange(20, 30)] * 2, np.arange(30, 35))
    assert one != again


class Negated(nn.Module):
    def forward(self, x):
        return -x


def test_any_parametrization_is_folded():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parametrizations.orthogonal(model[0])
    parametrize.register_parametrization(model[1], "bias", Negated())
    state = plain_state(model)
    assert set(state) == set(expected)
    assert torch.equal(state["1.bias"], -expected["1.bias"])
    assert torch.equal(state["1.weight"], expected["1.weight"])
    product = state["0.weight"].T @ state["0.weight"]
    rank = torch.linalg.matrix_rank(product)
    torch.testing.assert_close(product @ product, product, msg=str(rank))


def test_a_parametrized_root_is_folded():
    layer = nn.Linear(2, 2)
    expected = layer.weight.detach().clone()
    parametrize.register_parametrization(layer, "weight", Negated())
    assert torch.equal(plain_state(layer)["weight"], -expected)
