import numpy as np
import pytest
import torch

from harness.base.errors import CellError
from harness.subject.subject import Subject
from harness.testing import tiny_model, tiny_subject, tiny_tokenizer
from tests.subject.plain import (
    KINDS,
    M,
    N,
    gpu_memory,
    log_probs,
    make_memory_small,
    model_of,
    on_gpu,
    plain_loss,
    plain_losses,
    random_ids,
)

pytestmark = pytest.mark.transformers5


@pytest.fixture(params=KINDS)
def any_subject(request):
    """Return a subject of every family, encoder-decoders among them."""
    model = model_of(request.param)
    closed = model.config.is_encoder_decoder
    return Subject(model, tiny_tokenizer(closed=closed), batch_size=256)


# --- losses -------------------------------------------------------------------------


def test_losses_are_those_of_plain_transformers(any_subject):
    model, _ = any_subject.huggingface()
    prompts = [*random_ids(5, N), *(random_ids(n, seed=n) for n in (3, 9, 3, 1, 9))]
    references = [*random_ids(5, M, seed=1)]
    references += [random_ids(m, seed=m) for m in (4, 4, 4, 1, 2)]
    references[2][-1] = 0  # the end of text is scored like any other token

    losses = any_subject.losses(prompts, references)

    expected = plain_losses(model, prompts, references)
    assert losses.dtype == np.float64
    assert np.ptp(losses) > 0.01
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    exact = any_subject.exact_losses(prompts, references)
    error = 1e-5 if model.config.is_encoder_decoder else 1e-6
    np.testing.assert_allclose(exact, expected, rtol=0, atol=error)


def test_the_batch_size_does_not_change_a_loss(any_subject):
    prompts = [*random_ids(256, N), *(random_ids(n, seed=n) for n in (3, 9, 3, 1, 9))]
    references = [*random_ids(256, M)]
    references += [random_ids(m, seed=m) for m in (4, 4, 4, 1, 2)]
    some = slice(-20, None)

    together = any_subject.losses(prompts, references)[some]
    any_subject.batch_size = 1
    alone = any_subject.losses(prompts[some], references[some])

    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    any_subject.batch_size = 256
    exact = any_subject.exact_losses(prompts[some], references[some])
    assert exact.tolist() == alone.tolist()


def test_one_reference_serves_all_prompts_and_arrays_may_be_read_only(subject):
    prompts, reference = random_ids(3, N), random_ids(M)
    narrow = prompts.astype(np.uint16)
    narrow.flags.writeable = False
    expected = subject.losses(prompts, [reference] * 3).tolist()

    assert subject.losses(list(prompts), reference).tolist() == expected
    assert subject.losses(narrow, reference).tolist() == expected
    assert subject.losses([], reference).tolist() == []


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


def test_a_model_in_training_mode_is_evaluated_without_dropout():
    model = tiny_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    prompts, reference = random_ids(2, N), random_ids(M)
    expected = plain_losses(model, prompts, [reference] * 2)

    subject = Subject(model.train(), tiny_tokenizer())

    found = subject.losses(prompts, reference)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
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


@pytest.mark.parametrize("token", [-1, 320, 10**7])
@pytest.mark.parametrize("ask", ["losses", "exact_losses", "gradients"])
def test_ids_that_the_model_does_not_have_are_refused(subject, ask, token):
    """On a GPU they would end the process; on a CPU, in words that name nobody."""
    prompt, reference = random_ids(N), random_ids(M)
    told = f"the token id {token} is none of this model's, which has ids from 0 to 319"
    written = np.array([*prompt[1:], token])
    for pair in (([prompt, written], reference), ([prompt], np.array([token]))):
        with pytest.raises(CellError, match=told):
            getattr(subject, ask)(*pair)


# --- losses off the embeddings ------------------------------------------------------


def test_a_step_to_another_token_gives_that_token_s_loss(any_subject):
    subject, model = any_subject, any_subject.huggingface()[0]
    prompt, reference = random_ids(N), random_ids(M, seed=1)
    flips = [(0, 7), (4, 200), (N - 1, 33)]
    shifts = torch.zeros(len(flips), N, subject.embedding.shape[1])
    flipped = np.tile(prompt, (len(flips), 1))
    for row, (position, token) in enumerate(flips):
        step = subject.embedding[token] - subject.embedding[prompt[position]]
        shifts[row, position], flipped[row, position] = step, token
    expected = plain_losses(model, flipped, [reference] * len(flips))

    with subject.metered() as meter:
        found = subject.shifted_losses(prompt, reference, shifts)

    assert found == pytest.approx(expected, abs=1e-5)
    assert meter.cost().sequences_forward == len(flips)
    still = subject.exact_losses([prompt], reference)[0]  # the hook is gone
    assert still == pytest.approx(plain_loss(model, prompt, reference), abs=1e-5)


def test_shifts_are_scored_in_batches(subject):
    prompt, reference = random_ids(N), random_ids(M, seed=1)
    draw = torch.Generator().manual_seed(0)
    shifts = 0.1 * torch.randn(5, N, subject.embedding.shape[1], generator=draw)
    together = subject.shifted_losses(prompt, reference, shifts)
    subject.batch_size = 2
    apart = subject.shifted_losses(prompt, reference, shifts)
    assert together == pytest.approx(apart, abs=1e-5)
    assert len(np.unique(together.round(6))) == 5


# --- losses of tokens ---------------------------------------------------------------


def test_token_losses_are_those_of_plain_transformers(family_subject):
    model, _ = family_subject.huggingface()
    sequences = [random_ids(n, seed=n) for n in (30, 12, 2, 50, *range(2, 60))]
    firsts = [1, 5, 1, 49, *[1] * 58]

    found = family_subject.token_losses(sequences, firsts)

    for ids, first, losses in zip(sequences, firsts, found, strict=True):
        expected = -log_probs(model, ids)[first - 1 :]
        np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)


def test_there_is_no_loss_of_a_first_token_or_where_nothing_is_scored(subject):
    losses = subject.token_losses([random_ids(1), random_ids(4), random_ids(0)], 2)
    assert [len(each) for each in losses] == [0, 2, 0]
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


@pytest.mark.parametrize("family", ["gpt_neox", "t5"])
def test_bfloat16_searches_and_float32_decides(family):
    """The losses of bfloat16 logits would fall into steps of 0.0156 nats or more."""
    model, tokenizer = tiny_model(family), tiny_tokenizer(closed=family == "t5")
    half = Subject(model, tokenizer, dtype="bfloat16")
    prompts, reference = random_ids(64, N), random_ids(M)
    prompts[:, : N - 2] = prompts[0, : N - 2]

    searched = half.losses(prompts, reference)
    exact = Subject(model, tokenizer).exact_losses(prompts, reference)

    assert 0 < abs(searched - exact).max() < 0.05
    assert len(np.unique(searched)) == 64
    assert (half.exact_losses(prompts, reference) == exact).all()
    assert half.top(prompts, reference, searched, 5) == np.argsort(-exact)[:5].tolist()


def test_bfloat16_leaves_the_reported_model_and_the_rotary_frequencies_alone():
    subject = Subject(tiny_model("llama"), tiny_tokenizer(), dtype="bfloat16")
    model, _ = subject.huggingface()
    dtypes = {p.dtype for p in model.parameters()}
    search = subject._passes.search.model

    assert dtypes == {torch.float32}
    assert {p.dtype for p in search.parameters()} == {torch.bfloat16}
    assert search.model.rotary_emb.inv_freq.dtype == torch.float32
    (gradient,) = subject.gradients(random_ids(1, N), random_ids(M))
    assert gradient.dtype == torch.float32


# --- gradients ----------------------------------------------------------------------


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


def test_the_ledger_counts_every_pass(any_subject):
    """A decoder reads no last token; an encoder-decoder reads both sides whole."""
    encoder_decoder = any_subject.huggingface()[0].config.is_encoder_decoder
    read = N + M if encoder_decoder else N + M - 1
    forward, backward = any_subject.pass_flops(N, M)
    with any_subject.metered() as meter:
        any_subject.losses(random_ids(5, N), random_ids(M))
        any_subject.exact_losses(random_ids(2, N), random_ids(M))
        any_subject.gradients(random_ids(3, N), random_ids(M))

    cost = meter.cost()
    assert (cost.sequences_forward, cost.tokens_forward) == (10, 10 * read)
    assert (cost.sequences_backward, cost.tokens_backward) == (3, 3 * read)
    assert cost.flops == pytest.approx(10 * forward + 3 * backward)
    assert cost.seconds > 0


def test_the_ledger_counts_no_padding(subject):
    with subject.metered() as meter:
        subject.token_losses([random_ids(30), random_ids(10)], [1, 4])

    assert meter.tokens_forward == 29 + 9
    expected = subject.pass_flops(1, 29)[0] + subject.pass_flops(4, 6)[0]
    assert meter.flops == pytest.approx(expected)


# --- limits -------------------------------------------------------------------------


def test_the_batch_is_halved_until_it_fits(subject):
    prompts, reference = random_ids(30, N), random_ids(M)
    expected = subject.exact_losses(prompts, reference)
    subject.batch_size = 24
    make_memory_small(subject, rows=5)

    with subject.metered() as meter:
        losses = subject.losses(prompts, reference)

    assert subject.batch_size == 3
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    assert meter.sequences_forward == 30


def test_a_sequence_that_does_not_fit_alone_is_an_error(subject):
    make_memory_small(subject, rows=0)
    with pytest.raises(CellError, match="does not fit into the device's memory"):
        subject.losses(random_ids(3, N), random_ids(M))


def test_a_head_that_caps_its_logits_is_refused():
    sizes = {"num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 64}
    model = tiny_model("gemma2", **sizes, final_logit_softcapping=0.1)
    with pytest.raises(CellError, match="Gemma2ForCausalLM changes its logits"):
        Subject(model, tiny_tokenizer())


# --- the model itself ---------------------------------------------------------------


def test_tied_parameters_count_once_and_making_a_subject_costs_nothing():
    model, tokenizer = tiny_model("gpt2"), tiny_tokenizer()
    subject = Subject(model, tokenizer)

    assert subject.n_parameters == model.num_parameters()
    assert subject.huggingface() == (model, tokenizer)
    assert subject.ledger.sequences_forward == 0


def test_text_becomes_ids_and_ids_text(subject):
    ids = subject.encode("the cat sat on the mat")

    assert subject.decode(ids) == "the cat sat on the mat"
    assert subject.reachable([ids, ids[::-1]])[0] is True


def test_a_loss_is_nan_where_no_text_encodes_to_the_prompt_if_so_wished(
    merging_tokenizer,
):
    """Prompts of two lengths and references, so that several passes are under way."""
    subject = Subject(tiny_model(vocab_size=52), merging_tokenizer)
    rng, tokens = np.random.default_rng(0), subject.vocabulary.allowed
    prompts = [*rng.choice(tokens, (20, 3)), *rng.choice(tokens, (20, 5))]
    references = [rng.choice(tokens, 2 + i % 2) for i in range(40)]
    again = [subject.encode(subject.decode(prompt)) for prompt in prompts]
    reachable = np.array(list(map(np.array_equal, again, prompts)))
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

    expected = plain_losses(model, blocks[:, :100], blocks[:, 100:])
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    assert np.exp(losses.mean()) < 185  # of the test split, on the whole of it


# --- on a GPU -----------------------------------------------------------------------


@pytest.mark.accelerator
@on_gpu
def test_a_gpu_repeats_its_results_and_agrees_with_the_cpu(family):
    cpu, gpu = (
        Subject(tiny_model(family), tiny_tokenizer(), device=device)
        for device in ("cpu", "cuda")
    )
    prompts, reference = random_ids(64, N), random_ids(M)

    exact, again = (gpu.exact_losses(prompts, reference) for _ in range(2))
    expected = cpu.exact_losses(prompts, reference)
    assert (exact == again).all()
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-4)
    losses = gpu.losses(prompts, reference)
    np.testing.assert_allclose(losses, exact, rtol=0, atol=5e-5)
    gradients, same = (gpu.gradients(prompts[:8], reference) for _ in range(2))
    for one, other in zip(gradients, same, strict=True):
        assert torch.equal(one, other)


@pytest.mark.accelerator
@on_gpu
def test_a_gpu_that_runs_out_of_memory_gets_smaller_batches():
    prompts, reference = np.tile(random_ids(8, 100), (2**11, 1)), random_ids(M)
    model, tokenizer = tiny_model(), tiny_tokenizer()
    subject = Subject(model, tokenizer, device="cuda", batch_size=len(prompts))
    expected = subject.exact_losses(prompts[:8], reference)
    torch.cuda.empty_cache()
    # Else, batches are small from the start.
    subject._passes.tokens_at_once = prompts.size
    with gpu_memory(torch.cuda.memory_reserved() + 300e6):
        losses = subject.losses(prompts, reference)

    assert 1 < subject.batch_size < len(prompts)
    np.testing.assert_allclose(losses, np.tile(expected, 2**11), rtol=0, atol=5e-5)


# --- views --------------------------------------------------------------------------


def test_a_view_replaces_gradients_and_nothing_else(subject):
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


def test_a_view_can_count_for_another_subject(subject):
    other = tiny_subject(seed=1)
    prompts, reference = [np.arange(5, 9)], np.arange(20, 23)

    with subject.metered() as spent, other.metered() as own:
        losses = other.metered_by(subject).losses(prompts, reference)

    assert (spent.sequences_forward, own.sequences_forward) == (1, 0)
    assert losses == other.losses(prompts, reference)


def test_plugins_that_name_a_subject_stay_light(imported):
    modules = imported(
        "from harness.base import Ids", "from harness.subject import Subject"
    )
    assert not modules & {"torch", "transformers", "numpy"}


@pytest.mark.parametrize(("slack", "made"), [(0.0, [4, 4, 2]), (0.5, [4, 6])])
def test_what_little_remains_goes_with_the_pass_before(slack, made, monkeypatch):
    subject = tiny_subject()
    passes, rows = subject._passes, []
    passes.tokens_at_once, passes._slack = 4 * (N + M - 1), slack
    score = passes.search.losses
    monkeypatch.setattr(
        passes.search, "losses", lambda *ids: rows.append(len(ids[0])) or score(*ids)
    )

    losses = subject.losses(random_ids(10, N), random_ids(M))

    assert rows == made
    assert losses == pytest.approx(
        subject.exact_losses(random_ids(10, N), random_ids(M)), abs=1e-4
    )
