import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.subject.flops import PassFlops, Seq2SeqFlops
from harness.testing import tiny_model
from tests.subject.plain import KINDS, model_of

N, SCORED = 24, 5


def counted(model) -> tuple[int, int]:
    """Count forward and backward to the embeddings, head at the last positions only."""
    model.set_attn_implementation("eager")  # the counter sees every product
    embeddings = model.get_input_embeddings()(torch.arange(N)[None])
    embeddings = embeddings.detach().requires_grad_(True)
    model.requires_grad_(False)
    with FlopCounterMode(display=False) as forward:
        if model.config.is_encoder_decoder:
            labels = torch.ones(1, SCORED).long()
            logits = model(inputs_embeds=embeddings, labels=labels).logits
        else:
            hidden = model.base_model(inputs_embeds=embeddings, use_cache=False)[0]
            logits = model.get_output_embeddings()(hidden[:, -SCORED:])
    with FlopCounterMode(display=False) as backward:
        torch.autograd.grad(logits.sum(), [embeddings])
    return forward.get_total_flops(), backward.get_total_flops()


@pytest.mark.transformers5
@pytest.mark.parametrize("kind", KINDS)
def test_analytic_flops_are_those_that_torch_counts(kind):
    model, flops, error = model_of(kind), PassFlops, 2e-4
    # Rotary embeddings are left out: one product of [rotary / 2, 1] by [1, n].
    if model.config.is_encoder_decoder:
        flops, error = Seq2SeqFlops, 1e-9

    forward, backward = flops.of(model)(N, SCORED)

    assert counted(model) == pytest.approx((forward, backward), rel=error)


def test_flops_of_a_model_of_real_shape_need_no_weights():
    """GPT-NeoX layers have 12 d^2 weights; so 24 d^2 FLOPs a token, 2 d V a logit."""
    sizes = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24}
    with torch.device("meta"):
        model = tiny_model("gpt_neox", **sizes, vocab_size=50304)

    forward, _ = PassFlops.of(model)(100, 50)

    layers = 24 * (24 * 2048**2 * 100 + 4 * 2048 * 100**2)
    assert forward == layers + 2 * 2048 * 50304 * 50
