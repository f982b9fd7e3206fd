"""Encoder-decoder subjects against plain transformers."""

import copy

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.base.errors import CellError
from harness.subject.flops import Seq2SeqFlops
from harness.subject.seq2seq import Seq2SeqNetwork
from harness.subject.subject import Subject
from harness.testing import GATED_T5, tiny_model, tiny_subject, tiny_tokenizer

pytestmark = pytest.mark.transformers5

N, M = 20, 7
KINDS = {
    "v1.0": {},
    "v1.1": GATED_T5,
    "shallow": {"num_layers": 1, "num_decoder_layers": 1},
}


def random_ids(*shape, seed=0):
    return np.random.default_rng(seed).integers(1, 282, size=shape)


def plain_loss(model, prompt, reference):
    with torch.no_grad():
        pair = (torch.as_tensor(ids)[None] for ids in (prompt, reference))
        return float(
            model(**dict(zip(("input_ids", "labels"), pair, strict=True))).loss
        )


@pytest.fixture(params=KINDS)
def subject(request):
    model = tiny_model("t5", **KINDS[request.param])
    return Subject(model, tiny_tokenizer(closed=True), batch_size=16)


def test_losses_are_those_of_plain_transformers(subject):
    model, _ = subject.huggingface()
    prompts, references = random_ids(5, N), random_ids(5, M, seed=1)
    references[2, -1] = 0  # the end of text is scored like any other token

    expected = [
        plain_loss(model, *pair) for pair in zip(prompts, references, strict=True)
    ]

    losses = subject.losses(prompts, references)
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    exact = subject.exact_losses(prompts, references)
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-5)
    assert np.ptp(losses) > 0.1


def test_the_head_of_v1_0_is_scaled_and_that_of_v1_1_is_not():
    scales = {k: Seq2SeqNetwork(tiny_model("t5", **c))._scale for k, c in KINDS.items()}
    assert scales == {"v1.0": 32**-0.5, "v1.1": 1.0, "shallow": 32**-0.5}


def test_a_head_that_is_not_understood_is_refused(subject):
    network = Seq2SeqNetwork(subject.huggingface()[0])
    network._scale *= 2
    with pytest.raises(CellError, match="in a way that is not known here"):
        network.check_head()


def test_the_batch_size_does_not_change_a_loss(subject):
    prompts = [random_ids(n, seed=n) for n in (3, 9, 3, 1, 9, 9)]
    references = [random_ids(m, seed=m) for m in (4, 4, 4, 1, 2, 4)]
    together = subject.losses(prompts, references)
    subject.batch_size = 1
    alone = subject.losses(prompts, references)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    assert subject.exact_losses(prompts, references).tolist() == alone.tolist()
    many = Subject(
        subject.huggingface()[0], tiny_tokenizer(closed=True), batch_size=256
    )
    rows = random_ids(256, N)
    np.testing.assert_allclose(
        many.losses(rows, random_ids(M))[:8],
        subject.losses(rows[:8], random_ids(M)),
        rtol=0,
        atol=1e-5,
    )


def test_the_gradient_is_that_of_the_encoder_s_embeddings_alone(subject):
    """The same module embeds the decoder's tokens, and a tied head shares its weight.

    So the encoder is given its inputs as embeddings, and is differenced. Norms and
    attention of T5 compute in float32 even in a float64 model, so the step is large.
    """
    model, _ = subject.huggingface()
    prompt, reference = random_ids(N), random_ids(M, seed=1)
    reference[:3] = prompt[:3]  # tokens that both sides embed
    (gradient,) = subject.gradients([prompt], reference)
    assert gradient.shape == (N, 32)
    assert gradient.dtype == torch.float32

    exact = copy.deepcopy(model).double()
    embedded = exact.get_input_embeddings()(torch.as_tensor(prompt))[None].detach()
    labels = torch.as_tensor(reference)[None]
    step = 1e-2
    for i in (0, 2, 7, N - 1):
        steepest = gradient[i].double() / gradient[i].norm()
        shift = torch.zeros_like(embedded)
        shift[0, i] = step * steepest
        with torch.no_grad():
            up, down = (
                exact(inputs_embeds=embedded + sign * shift, labels=labels).loss
                for sign in (1, -1)
            )
        slope = float(up - down) / (2 * step)
        assert float(gradient[i].norm()) == pytest.approx(slope, rel=0.03)


def test_a_tied_weight_s_own_gradient_would_be_another(subject):
    model, _ = subject.huggingface()
    prompt, reference = random_ids(N), random_ids(M, seed=1)
    reference[:3] = prompt[:3]
    (ours,) = subject.gradients([prompt], reference)
    weight = model.get_input_embeddings().weight.requires_grad_(True)
    pair = (torch.as_tensor(ids)[None] for ids in (prompt, reference))
    model(**dict(zip(("input_ids", "labels"), pair, strict=True))).loss.backward()
    position = int(prompt[0])
    assert not torch.allclose(weight.grad[position], ours[0], rtol=1e-2)


def test_a_first_order_gain_is_the_slope_towards_the_other_token(subject):
    prompt, reference = random_ids(N), random_ids(M, seed=1)
    (gradient,) = subject.gradients([prompt], reference)
    gains = subject.gains(prompt, gradient)
    flips = [(0, 70), (5, 90), (N - 1, 270)]
    step = 1e-2
    shifts = torch.zeros(2 * len(flips), N, 32)
    for row, (i, b) in enumerate(flips):
        direction = subject.embedding[b] - subject.embedding[prompt[i]]
        shifts[2 * row, i], shifts[2 * row + 1, i] = step * direction, -step * direction
    losses = subject.shifted_losses(prompt, reference, shifts)
    for row, (i, b) in enumerate(flips):
        slope = (losses[2 * row] - losses[2 * row + 1]) / (2 * step)
        assert float(gains[i, b]) == pytest.approx(slope, rel=0.05, abs=2e-3)


def test_a_step_to_another_token_gives_that_token_s_loss(subject):
    prompt, reference = random_ids(N), random_ids(M, seed=1)
    other = prompt.copy()
    other[4] = 200
    shift = torch.zeros(1, N, 32)
    shift[0, 4] = subject.embedding[200] - subject.embedding[prompt[4]]
    found = subject.shifted_losses(prompt, reference, shift)
    assert found == pytest.approx(subject.exact_losses([other], reference), abs=1e-5)


def test_searching_in_bfloat16_is_judged_in_float32():
    model, tokenizer = tiny_model("t5"), tiny_tokenizer(closed=True)
    rough = Subject(model, tokenizer, dtype="bfloat16")
    prompts, reference = random_ids(40, N), random_ids(M)
    losses = rough.losses(prompts, reference)
    exact = rough.exact_losses(prompts, reference)
    assert np.abs(losses - exact).max() < 0.05
    assert rough.best(prompts, reference, losses) == int(exact.argmax())
    expected = [plain_loss(model, prompt, reference) for prompt in prompts[:3]]
    assert exact[:3] == pytest.approx(expected, abs=1e-5)


def test_a_model_without_a_start_token_is_refused():
    model = tiny_model("t5")
    model.config.decoder_start_token_id = None
    with pytest.raises(CellError, match="states no decoder_start_token_id"):
        Subject(model, tiny_tokenizer(closed=True))


def test_tokens_of_a_text_have_no_losses_of_their_own(subject):
    with pytest.raises(CellError, match="scores a reference after a prompt"):
        subject.token_losses([random_ids(N)], 1)


@pytest.mark.parametrize("kind", KINDS)
def test_analytic_flops_are_those_that_torch_counts(kind):
    model = tiny_model("t5", **KINDS[kind]).requires_grad_(False)
    model.set_attn_implementation("eager")
    embedded = model.get_input_embeddings()(torch.as_tensor(random_ids(1, N)))
    embedded = embedded.detach().requires_grad_(True)
    with FlopCounterMode(display=False) as forward:
        logits = model(inputs_embeds=embedded, labels=torch.ones(1, M).long()).logits
    with FlopCounterMode(display=False) as backward:
        torch.autograd.grad(logits.sum(), [embedded])

    expected = forward.get_total_flops(), backward.get_total_flops()
    assert Seq2SeqFlops.of(model)(N, M) == pytest.approx(expected, rel=1e-9)


def test_what_is_spent_counts_the_tokens_of_both_sides(subject):
    forward, backward = subject.pass_flops(N, M)
    with subject.metered() as meter:
        subject.losses(random_ids(3, N), random_ids(M))
        subject.gradients(random_ids(1, N), random_ids(M))
    cost = meter.cost()
    assert (cost.sequences_forward, cost.tokens_forward) == (4, 4 * (N + M))
    assert (cost.sequences_backward, cost.tokens_backward) == (1, N + M)
    assert cost.flops == 4 * forward + backward


def test_a_t5_has_no_limit_of_positions(subject):
    assert subject.max_positions is None
    losses = subject.losses(random_ids(1, 600), random_ids(M))
    assert losses == pytest.approx(
        plain_loss(subject.huggingface()[0], random_ids(600), random_ids(M)), abs=1e-5
    )


# --- greedy decoding ----------------------------------------------------------------


def decoded_alone(model, prompt, max_new_tokens, end=0):
    written = model.generate(
        torch.as_tensor(prompt)[None],
        attention_mask=torch.ones(1, len(prompt)).long(),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=end,
        pad_token_id=end,
        use_cache=model.config.model_type != "t5",
    )[0]
    encoder_decoder = model.config.is_encoder_decoder
    return written[1 if encoder_decoder else len(prompt) :].tolist()


@pytest.mark.parametrize(
    "name", ["gpt_neox", "opt", "gpt_neo", "gpt2", "llama", "t5", "t5 v1.1"]
)
def test_what_is_written_is_what_transformers_writes(name):
    changes = GATED_T5 if name == "t5 v1.1" else {}
    model = tiny_model(name.split()[0], **changes)
    subject = Subject(
        model, tiny_tokenizer(closed=model.config.is_encoder_decoder), batch_size=3
    )
    prompts = [random_ids(n, seed=n) for n in (5, 12, 3, 12, 7)]

    found = subject.generate(prompts, 9)

    expected = [decoded_alone(model, prompt, 9) for prompt in prompts]
    assert [ids.tolist() for ids in found] == expected
    assert len({tuple(ids) for ids in expected}) > 1


def test_a_text_ends_with_its_end_token(subject):
    model, tokenizer = subject.huggingface()
    prompts = [random_ids(n, seed=n) for n in range(2, 9)]
    whole = subject.generate(prompts, 12)
    end = int(whole[0][4])  # a token that is written is made the end

    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    assert tokenizer.eos_token_id == end
    cut = subject.generate(prompts, 12)

    assert cut[0].tolist() == whole[0][: whole[0].tolist().index(end) + 1].tolist()
    for prompt, ids in zip(prompts, cut, strict=True):
        assert ids.tolist() == decoded_alone(model, prompt, 12, end)


def test_what_is_written_is_on_the_ledger(subject):
    prompts = [random_ids(n, seed=n) for n in (5, 12)]
    with subject.metered() as meter:
        written = subject.generate(prompts, 6)
    lengths = [(len(p), len(w)) for p, w in zip(prompts, written, strict=True)]
    assert meter.cost().sequences_forward == 2
    assert meter.cost().tokens_forward == sum(n + m for n, m in lengths)
    assert meter.cost().flops == sum(subject.pass_flops(*pair)[0] for pair in lengths)


def test_a_decoder_s_positions_limit_what_it_writes():
    subject = tiny_subject("gpt2")
    with pytest.raises(CellError, match="129 tokens is too long"):
        subject.generate([random_ids(120)], 10)
