import copy
import subprocess
import sys

import numpy as np
import pytest
import torch

from harness.base.errors import CellError
from harness.subject.subject import Subject

pytestmark = pytest.mark.transformers5

N, M = 20, 7
STEP = 1e-3


def random_ids(*shape, seed=0):
    return np.random.default_rng(seed).integers(1, 282, size=shape)


def log_probs(model, ids):
    """Return log p of every next token, from plain transformers, in float64."""
    with torch.no_grad():
        logits = model(torch.as_tensor(ids)[None]).logits[0, :-1]
    targets = torch.as_tensor(ids[1:])[:, None]
    return logits.double().log_softmax(-1).gather(1, targets)[:, 0].numpy()


def plain_loss(model, prompt, reference):
    scored = log_probs(model, np.concatenate([prompt, reference]))[len(prompt) - 1 :]
    return -scored.mean()


def loss_of_embeddings(model, embeddings, reference):
    """Return L of a prompt given as embeddings [n, d], in the model's precision."""
    tail = model.get_input_embeddings()(torch.as_tensor(reference))
    inputs = torch.cat([embeddings, tail])[None]
    logits = model(inputs_embeds=inputs).logits[0, len(embeddings) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, torch.as_tensor(reference))


class ScaledEmbedding(torch.nn.Embedding):
    """An embedding whose output is not its weight, as Gemma's is."""

    def forward(self, ids):
        return super().forward(ids) * 5.0


@pytest.fixture
def subject(tiny_model, tiny_tokenizer):
    return Subject(tiny_model(), tiny_tokenizer)


@pytest.fixture
def family_subject(tiny_model, tiny_tokenizer, family):
    return Subject(tiny_model(family), tiny_tokenizer)


@pytest.fixture
def scaled_model(tiny_model):
    model = tiny_model("llama")
    scaled = ScaledEmbedding(320, 32)
    scaled.load_state_dict(model.get_input_embeddings().state_dict())
    model.set_input_embeddings(scaled)
    return model


# --- losses -------------------------------------------------------------------------


def test_losses_are_those_of_plain_transformers(family_subject):
    model, _ = family_subject.huggingface()
    prompts, references = random_ids(5, N), random_ids(5, M, seed=1)

    expected = [
        plain_loss(model, *pair) for pair in zip(prompts, references, strict=True)
    ]

    losses = family_subject.losses(prompts, references)
    assert losses.dtype == np.float64
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    exact = family_subject.exact_losses(prompts, references)
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-6)


def test_the_batch_size_does_not_change_a_loss(tiny_model, tiny_tokenizer, family):
    one = Subject(tiny_model(family), tiny_tokenizer, batch_size=1)
    many = Subject(tiny_model(family), tiny_tokenizer, batch_size=256)
    prompts, reference = random_ids(256, N), random_ids(M)

    alone = one.losses(prompts[:20], reference)
    together = many.losses(prompts, reference)[:20]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    assert many.exact_losses(prompts[:20], reference).tolist() == alone.tolist()


def test_pairs_of_unequal_shapes_keep_their_order(subject):
    model, _ = subject.huggingface()
    prompts = [random_ids(n, seed=n) for n in (3, 9, 3, 1, 9)]
    references = [random_ids(m, seed=m) for m in (4, 4, 4, 1, 2)]

    expected = [
        plain_loss(model, *pair) for pair in zip(prompts, references, strict=True)
    ]

    np.testing.assert_allclose(
        subject.losses(prompts, references), expected, rtol=0, atol=1e-5
    )


def test_one_reference_can_serve_all_prompts(subject):
    prompts, reference = random_ids(3, N), random_ids(M)

    together = subject.losses(list(prompts), reference)

    assert together.tolist() == subject.losses(prompts, [reference] * 3).tolist()
    assert subject.losses([], reference).tolist() == []


def test_read_only_and_narrow_arrays_are_ids_too(subject):
    prompts, reference = random_ids(3, N), random_ids(M)
    narrow = prompts.astype(np.uint16)
    narrow.flags.writeable = False

    losses = subject.losses(narrow, reference)

    assert losses.tolist() == subject.losses(prompts, reference).tolist()


def test_logits_are_computed_at_scored_positions_only(subject):
    model, _ = subject.huggingface()
    rows = []
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda module, args, output: rows.append(output[..., 0]))

    subject.losses(random_ids(4, N), random_ids(M))
    subject.gradients(random_ids(1, N), random_ids(M))
    subject.token_losses([random_ids(N), random_ids(9)], [15, 8])

    assert [row.numel() for row in rows] == [4 * M, M, (N - 15) + 1]


def test_passes_leave_nothing_behind(family_subject):
    """The caches that a model keeps between passes would change the second one."""
    prompts, reference = random_ids(3, N), random_ids(M)
    losses = family_subject.exact_losses(prompts, reference)
    (gradient,) = family_subject.gradients(prompts[:1], reference)

    family_subject.token_losses(random_ids(4, 60), 1)

    assert (family_subject.exact_losses(prompts, reference) == losses).all()
    assert torch.equal(family_subject.gradients(prompts[:1], reference)[0], gradient)


def test_a_model_in_training_mode_is_evaluated_without_dropout(
    tiny_model, tiny_tokenizer
):
    model = tiny_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    prompts, reference = random_ids(2, N), random_ids(M)
    expected = [plain_loss(model, prompt, reference) for prompt in prompts]

    subject = Subject(model.train(), tiny_tokenizer)

    np.testing.assert_allclose(
        subject.losses(prompts, reference), expected, rtol=0, atol=1e-5
    )
    first, second = subject.gradients([prompts[0]] * 2, reference)
    assert torch.equal(first, second)


def test_a_prompt_needs_a_token_and_so_does_a_reference(subject):
    with pytest.raises(ValueError, match="at least one token"):
        subject.losses([random_ids(0)], random_ids(M))
    with pytest.raises(ValueError, match="at least one token"):
        subject.losses([random_ids(N)], random_ids(0))


def test_a_sequence_beyond_the_model_s_positions_is_refused(subject):
    assert subject.max_positions == 128
    subject.losses(random_ids(1, 120), random_ids(9))  # the last token is not read

    with pytest.raises(CellError, match=r"129 tokens is too long .* 128 positions"):
        subject.losses(random_ids(1, 120), random_ids(10))


# --- losses off the embeddings ------------------------------------------------------


def test_a_step_to_another_token_gives_that_token_s_loss(family_subject):
    subject, model = family_subject, family_subject.huggingface()[0]
    prompt, reference = random_ids(N), random_ids(M, seed=1)
    flips = [(0, 7), (4, 200), (N - 1, 33)]
    shifts = torch.zeros(len(flips), N, subject.embedding.shape[1])
    expected = []
    for shift, (position, token) in zip(shifts, flips, strict=True):
        shift[position] = subject.embedding[token] - subject.embedding[prompt[position]]
        flipped = prompt.copy()
        flipped[position] = token
        expected.append(plain_loss(model, flipped, reference))

    with subject.metered() as meter:
        found = subject.shifted_losses(prompt, reference, shifts)

    assert found == pytest.approx(expected, abs=1e-5)
    assert meter.cost().sequences_forward == len(flips)
    still = subject.exact_losses([prompt], reference)[0]  # the hook is gone
    assert still == pytest.approx(plain_loss(model, prompt, reference), abs=1e-5)


def test_shifts_are_scored_in_batches(subject):
    prompt, reference = random_ids(N), random_ids(M, seed=1)
    shifts = 0.1 * torch.randn(
        5, N, subject.embedding.shape[1], generator=torch.Generator().manual_seed(0)
    )
    together = subject.shifted_losses(prompt, reference, shifts)
    subject.batch_size = 2
    apart = subject.shifted_losses(prompt, reference, shifts)
    assert together == pytest.approx(apart, abs=1e-5)
    assert len(np.unique(together.round(6))) == 5


# --- losses of tokens ---------------------------------------------------------------


def test_token_losses_are_those_of_plain_transformers(family_subject):
    model, _ = family_subject.huggingface()
    sequences = [random_ids(n, seed=n) for n in (30, 12, 2, 50)]
    firsts = [1, 5, 1, 49]

    found = family_subject.token_losses(sequences, firsts)

    for ids, first, losses in zip(sequences, firsts, found, strict=True):
        expected = -log_probs(model, ids)[first - 1 :]
        np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)


def test_token_losses_do_not_depend_on_the_batch(tiny_model, tiny_tokenizer):
    sequences = [random_ids(n, seed=n) for n in range(2, 60)]
    one, many = (
        Subject(tiny_model("opt"), tiny_tokenizer, batch_size=size) for size in (1, 256)
    )

    alone, padded = one.token_losses(sequences, 1), many.token_losses(sequences, 1)

    np.testing.assert_allclose(
        np.concatenate(padded), np.concatenate(alone), rtol=0, atol=1e-5
    )


def test_a_sequence_with_nothing_to_score_has_no_losses(subject):
    losses = subject.token_losses([random_ids(1), random_ids(4), random_ids(0)], 2)

    assert [len(each) for each in losses] == [0, 2, 0]


def test_the_first_token_of_a_sequence_has_no_loss(subject):
    with pytest.raises(ValueError, match="no prediction"):
        subject.token_losses([random_ids(4)], 0)


# --- choosing -----------------------------------------------------------------------


def test_rounding_cannot_choose(subject):
    prompts, reference = random_ids(40, N), random_ids(M)
    exact = subject.exact_losses(prompts, reference)
    order = np.argsort(-exact)
    noise = np.random.default_rng(0).uniform(-4e-5, 4e-5, size=exact.shape)
    near = exact.copy()
    near[order[1]] = exact[order[0]] + 3e-5

    assert subject.best(prompts, reference, near) == order[0]
    for k in (1, 3, 40, 50):
        found = subject.top(prompts, reference, exact + noise, k)
        assert found == order[:k].tolist()
        lowest = subject.top(prompts, reference, exact + noise, k, lowest=True)
        assert lowest == order[::-1][:k].tolist()


def test_equal_losses_go_to_the_lower_index(subject):
    prompts = random_ids(2, N)[[0, 1, 0, 1, 0]]
    losses = subject.losses(prompts, random_ids(M))

    order = subject.top(prompts, random_ids(M), losses, 5)

    assert order in ([0, 2, 4, 1, 3], [1, 3, 0, 2, 4])


def test_a_clear_order_is_not_scored_again(subject):
    prompts, reference = random_ids(3, N), random_ids(M)
    with subject.metered() as meter:
        assert subject.top(prompts, reference, np.array([1.0, 3.0, 2.0]), 2) == [1, 2]

    assert meter.sequences_forward == 0


def test_losses_that_are_not_finite_come_last(subject):
    prompts, reference = random_ids(4, N), random_ids(M)
    losses = np.array([np.nan, 1.0, np.inf, 2.0])

    assert subject.top(prompts, reference, losses, 2) == [3, 1]
    assert subject.top(prompts, reference, losses, 2, lowest=True) == [1, 3]
    assert subject.top([], reference, np.empty(0), 2) == []


def test_a_loss_may_be_the_mean_over_pairs_that_follow_one_another(subject):
    prompts, references = random_ids(12, N), list(random_ids(12, M))
    exact = subject.exact_losses(prompts, references).reshape(4, 3).mean(axis=1)
    touched = exact + np.array([4, -4, 4, -4]) * 1e-5

    assert subject.top(prompts, references, touched, 4) == np.argsort(-exact).tolist()
    with pytest.raises(ValueError, match="5 losses are not of 12 pairs"):
        subject.top(prompts, references, np.zeros(5), 1)


# --- bfloat16 -----------------------------------------------------------------------


def test_bfloat16_searches_and_float32_decides(tiny_model, tiny_tokenizer):
    """The losses of bfloat16 logits would fall into steps of 0.0156 nats or more."""
    half = Subject(tiny_model(), tiny_tokenizer, dtype="bfloat16")
    full = Subject(tiny_model(), tiny_tokenizer)
    prompts, reference = random_ids(64, N), random_ids(M)
    prompts[:, : N - 2] = prompts[0, : N - 2]

    searched = half.losses(prompts, reference)
    exact = full.exact_losses(prompts, reference)

    assert 0 < abs(searched - exact).max() < 0.05
    assert len(np.unique(searched)) == 64
    assert (half.exact_losses(prompts, reference) == exact).all()
    assert half.top(prompts, reference, searched, 5) == np.argsort(-exact)[:5].tolist()


def test_bfloat16_leaves_the_reported_model_and_the_rotary_frequencies_alone(
    tiny_model, tiny_tokenizer
):
    subject = Subject(tiny_model("llama"), tiny_tokenizer, dtype="bfloat16")
    model, _ = subject.huggingface()
    dtypes = {p.dtype for p in model.parameters()}
    search = subject._passes.search.model

    assert dtypes == {torch.float32}
    assert {p.dtype for p in search.parameters()} == {torch.bfloat16}
    assert search.model.rotary_emb.inv_freq.dtype == torch.float32
    (gradient,) = subject.gradients(random_ids(1, N), random_ids(M))
    assert gradient.dtype == torch.float32


# --- gradients ----------------------------------------------------------------------


def test_embeddings_in_place_of_ids_give_the_same_logits(family_subject):
    """One-hot vectors times `embedding` are what the model makes of the ids."""
    model, _ = family_subject.huggingface()
    assert_embeddings_are_ids(family_subject, model)


def test_scaled_embeddings_in_place_of_ids_give_the_same_logits(
    scaled_model, tiny_tokenizer
):
    assert_embeddings_are_ids(Subject(scaled_model, tiny_tokenizer), scaled_model)


def assert_embeddings_are_ids(subject, model):
    ids = torch.as_tensor(random_ids(N))
    onehot = torch.nn.functional.one_hot(ids, 320).float()
    with torch.no_grad():
        expected = model(ids[None]).logits
        logits = model(inputs_embeds=(onehot @ subject.embedding)[None]).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_gradients_are_true_to_finite_differences(family_subject):
    model, _ = family_subject.huggingface()
    assert_gradient_is_true(family_subject, model)


def test_gradients_of_scaled_embeddings_are_true_to_finite_differences(
    scaled_model, tiny_tokenizer
):
    assert_gradient_is_true(Subject(scaled_model, tiny_tokenizer), scaled_model)


def assert_gradient_is_true(subject, model):
    """Compare gains with central differences along E_b - E_a.

    In float64; since some families compute norms and rotations in float32 all the
    same, the step is wide and the tokens are those with the steepest slopes.
    """
    prompt, reference = random_ids(N), random_ids(M, seed=1)
    (gradient,) = subject.gradients([prompt], [reference])
    gains = subject.gains(prompt, gradient)
    double = copy.deepcopy(model).double()
    table = double.get_input_embeddings()
    start = table(torch.as_tensor(prompt))

    for position in (0, 7, N - 1):
        token = gains[position].argmax()
        step = torch.zeros_like(start)
        step[position] = table(token) - start[position]
        up, down = (
            loss_of_embeddings(double, start + h * step, reference)
            for h in (STEP, -STEP)
        )
        slope = (up - down).item() / (2 * STEP)
        assert gains[position, token].item() == pytest.approx(slope, rel=1e-2)


@pytest.mark.parametrize("family", ["opt", "gpt_neo", "gpt2"])
def test_tied_embeddings_do_not_mix_the_head_into_the_gradient(
    family, tiny_model, tiny_tokenizer
):
    tied = tiny_model(family)
    assert tied.get_input_embeddings().weight is tied.get_output_embeddings().weight
    untied = copy.deepcopy(tied)
    head = untied.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    pair = random_ids(1, N), random_ids(1, M)

    (gradient,) = Subject(tied, tiny_tokenizer).gradients(*pair)
    (expected,) = Subject(untied, tiny_tokenizer).gradients(*pair)

    assert torch.equal(gradient, expected)
    assert all(parameter.grad is None for parameter in tied.parameters())
    assert not any(parameter.requires_grad for parameter in tied.parameters())


def test_gradients_do_not_depend_on_company_or_on_the_caller_s_mode(subject):
    prompts, reference = random_ids(3, N), random_ids(M)
    together = subject.gradients(prompts, reference)
    with torch.inference_mode():
        (alone,) = subject.gradients(prompts[2:], reference)

    assert torch.equal(alone, together[2])
    assert alone.shape == (N, 32)


def test_a_gradient_leaves_no_hook_on_the_embedding(subject):
    model, _ = subject.huggingface()
    subject.gradients(random_ids(1, N), random_ids(M))

    assert not model.get_input_embeddings()._forward_hooks


def test_gains_are_the_formula_where_a_token_may_be_written(subject):
    prompt = random_ids(N)
    (gradient,) = subject.gradients([prompt], random_ids(M))
    gains = subject.gains(prompt, gradient).numpy()
    table = subject.embedding.numpy()
    allowed = set(subject.vocabulary.allowed.tolist())

    for i, a in enumerate(prompt):
        for b in range(320):
            expected = (table[b] - table[a]) @ gradient[i].numpy()
            if b in allowed and b != a:
                assert gains[i, b] == pytest.approx(expected, abs=1e-5)
            else:
                assert gains[i, b] == -np.inf


# --- what it costs ------------------------------------------------------------------


def test_the_ledger_counts_every_pass(subject):
    forward, backward = subject.pass_flops(N, M)
    with subject.metered() as meter:
        subject.losses(random_ids(5, N), random_ids(M))
        subject.exact_losses(random_ids(2, N), random_ids(M))
        subject.gradients(random_ids(3, N), random_ids(M))

    cost = meter.cost()
    assert cost.sequences_forward == 10
    assert cost.tokens_forward == 10 * (N + M - 1)
    assert cost.sequences_backward == 3
    assert cost.tokens_backward == 3 * (N + M - 1)
    assert cost.flops == pytest.approx(10 * forward + 3 * backward)
    assert cost.seconds > 0


def test_the_ledger_counts_no_padding(subject):
    with subject.metered() as meter:
        subject.token_losses([random_ids(30), random_ids(10)], [1, 4])

    assert meter.tokens_forward == 29 + 9
    expected = subject.pass_flops(1, 29)[0] + subject.pass_flops(4, 6)[0]
    assert meter.flops == pytest.approx(expected)


def test_checking_the_model_is_not_on_the_ledger(subject):
    assert subject.ledger.sequences_forward == 0


# --- limits -------------------------------------------------------------------------


def out_of_memory_beyond(rows):
    def check(module, args, kwargs):
        if len(kwargs["input_ids"]) > rows:
            raise torch.OutOfMemoryError("the test's device is small")

    return check


def test_the_batch_is_halved_until_it_fits(tiny_model, tiny_tokenizer):
    model = tiny_model()
    prompts, reference = random_ids(30, N), random_ids(M)
    expected = Subject(model, tiny_tokenizer).losses(prompts, reference)
    subject = Subject(model, tiny_tokenizer, batch_size=24)
    model.base_model.register_forward_pre_hook(
        out_of_memory_beyond(5), with_kwargs=True
    )

    losses = subject.losses(prompts, reference)

    assert subject.batch_size == 3
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    assert subject.ledger.sequences_forward == 30


def test_a_sequence_that_does_not_fit_alone_is_an_error(subject):
    model, _ = subject.huggingface()
    model.base_model.register_forward_pre_hook(
        out_of_memory_beyond(0), with_kwargs=True
    )

    with pytest.raises(CellError, match="does not fit into the device's memory"):
        subject.losses(random_ids(3, N), random_ids(M))


def test_a_head_that_caps_its_logits_is_refused(tiny_tokenizer):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=0.1,
    )

    with pytest.raises(CellError, match="Gemma2ForCausalLM changes its logits"):
        Subject(Gemma2ForCausalLM(config), tiny_tokenizer)


# --- the model itself ---------------------------------------------------------------


def test_tied_parameters_count_once(tiny_model, tiny_tokenizer):
    subject = Subject(tiny_model("gpt2"), tiny_tokenizer)
    model, tokenizer = subject.huggingface()

    assert subject.n_parameters == model.num_parameters()
    assert tokenizer is tiny_tokenizer


def test_text_becomes_ids_and_ids_text(subject):
    ids = subject.encode("the cat sat on the mat")

    assert subject.decode(ids) == "the cat sat on the mat"
    assert subject.reachable([ids, ids[::-1]])[0] is True


def test_a_loss_is_nan_where_no_text_encodes_to_the_prompt_if_so_wished(
    tiny_model, merging_tokenizer
):
    """Prompts of two lengths and references, so that several passes are under way."""
    subject = Subject(tiny_model(vocab_size=52), merging_tokenizer)
    rng, tokens = np.random.default_rng(0), subject.vocabulary.allowed
    prompts = [*rng.choice(tokens, (20, 3)), *rng.choice(tokens, (20, 5))]
    references = [rng.choice(tokens, 2 + i % 2) for i in range(40)]
    texts = [subject.decode(prompt) for prompt in prompts]
    reachable = np.array(
        [
            subject.encode(text).tolist() == prompt.tolist()
            for text, prompt in zip(texts, prompts, strict=True)
        ]
    )
    assert 10 < reachable.sum() < 35
    with subject.metered() as plain:
        expected = subject.losses(prompts, references)

    with subject.metered() as spent:
        losses = subject.losses(prompts, references, reachable_only=True)

    assert (np.isnan(losses) == ~reachable).all()
    assert (losses[reachable] == expected[reachable]).all()
    assert spent.flops == plain.flops
    exact = np.where(reachable, subject.exact_losses(prompts, references), np.nan)
    for lowest in (False, True):
        kept = subject.top(prompts, references, losses, 3, lowest=lowest)
        order = np.argsort(exact if lowest else -exact)
        assert kept == order[:3].tolist()


def test_a_trained_model_is_scored_as_plain_transformers_scores_it(shared):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shared / "models/pythia-14m-standin"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    subject = Subject(model, AutoTokenizer.from_pretrained(folder))
    text = (shared / "data/wikitext2_valid.txt").read_text(encoding="utf-8")
    blocks = subject.encode(text[:50000])[: 16 * 200].reshape(16, 200)

    losses = subject.exact_losses(blocks[:, :100], blocks[:, 100:])

    expected = [plain_loss(model, block[:100], block[100:]) for block in blocks]
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    assert np.exp(losses.mean()) < 185  # of the test split, on the whole of it


# --- on a GPU -----------------------------------------------------------------------

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.accelerator
@on_gpu
def test_a_gpu_repeats_its_results_and_agrees_with_the_cpu(
    tiny_model, tiny_tokenizer, family
):
    cpu = Subject(tiny_model(family), tiny_tokenizer)
    gpu = Subject(tiny_model(family), tiny_tokenizer, device="cuda")
    prompts, reference = random_ids(64, N), random_ids(M)

    exact, again = (gpu.exact_losses(prompts, reference) for _ in range(2))
    assert (exact == again).all()
    np.testing.assert_allclose(
        exact, cpu.exact_losses(prompts, reference), rtol=0, atol=1e-4
    )
    losses = gpu.losses(prompts, reference)
    np.testing.assert_allclose(losses, exact, rtol=0, atol=5e-5)
    gradients, same = (gpu.gradients(prompts[:8], reference) for _ in range(2))
    for one, other in zip(gradients, same, strict=True):
        assert torch.equal(one, other)


@pytest.mark.accelerator
@on_gpu
def test_a_gpu_that_runs_out_of_memory_gets_smaller_batches(tiny_model, tiny_tokenizer):
    prompts, reference = np.tile(random_ids(8, 100), (2**11, 1)), random_ids(M)
    subject = Subject(
        tiny_model(), tiny_tokenizer, device="cuda", batch_size=len(prompts)
    )
    expected = subject.exact_losses(prompts[:8], reference)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    limit = torch.cuda.memory_reserved() + 300e6
    subject._passes.tokens_at_once = (
        prompts.size
    )  # else, batches are small from the start
    torch.cuda.set_per_process_memory_fraction(limit / total)
    try:
        losses = subject.losses(prompts, reference)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

    assert 1 < subject.batch_size < len(prompts)
    np.testing.assert_allclose(losses, np.tile(expected, 2**11), rtol=0, atol=5e-5)


def test_a_view_replaces_gradients_and_nothing_else(tiny_model, tiny_tokenizer):
    subject = Subject(tiny_model(), tiny_tokenizer)
    prompts, reference = [np.arange(5, 9), np.arange(8, 12)], np.arange(20, 23)
    real = subject.gradients(prompts, reference)
    asked = []

    def turned(prompts, references, gradients):
        asked.extend(zip(prompts, references, strict=True))
        return [-gradient for gradient in gradients]

    view = subject.with_gradients(turned)
    with subject.metered() as spent:
        found = view.gradients(prompts, reference)

    assert all(torch.equal(f, -r) for f, r in zip(found, real, strict=True))
    assert [p.tolist() for p, _ in asked] == [p.tolist() for p in prompts]
    assert all(r.tolist() == reference.tolist() for _, r in asked)
    assert spent.sequences_backward == 2
    assert view.losses(prompts, reference) == pytest.approx(
        subject.losses(prompts, reference)
    )


def test_a_view_can_count_for_another_subject(tiny_model, tiny_tokenizer):
    subject, other = (Subject(tiny_model(seed=seed), tiny_tokenizer) for seed in (0, 1))
    prompts, reference = [np.arange(5, 9)], np.arange(20, 23)

    with subject.metered() as spent, other.metered() as own:
        losses = other.metered_by(subject).losses(prompts, reference)

    assert (spent.sequences_forward, own.sequences_forward) == (1, 0)
    assert losses == other.losses(prompts, reference)


def test_plugins_that_name_a_subject_stay_light():
    program = (
        "import sys\n"
        "from harness.base import Ids\n"
        "from harness.subject import Subject\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
