"""Encoder-decoder subjects against plain transformers."""

import pytest
import torch

from harness.base.errors import CellError
from harness.subject.seq2seq import Seq2SeqNetwork
from harness.subject.subject import Subject
from harness.testing import tiny_model, tiny_subject, tiny_tokenizer
from tests.subject.plain import T5_KINDS, M, N, model_of, plain_loss, random_ids

pytestmark = pytest.mark.transformers5


@pytest.fixture(params=T5_KINDS)
def subject(request):
    model = model_of(request.param)
    return Subject(model, tiny_tokenizer(closed=True), batch_size=16)


def test_the_head_of_v1_0_is_scaled_and_that_of_v1_1_is_not():
    scales = [Seq2SeqNetwork(model_of(kind))._scale for kind in T5_KINDS]
    assert scales == [32**-0.5, 1.0, 32**-0.5]


def test_a_head_that_is_not_understood_is_refused(subject):
    network = Seq2SeqNetwork(subject.huggingface()[0])
    network._scale *= 2
    with pytest.raises(CellError, match="in a way that is not known here"):
        network.check_head()


def test_a_model_without_a_start_token_is_refused():
    model = tiny_model("t5")
    model.config.decoder_start_token_id = None
    with pytest.raises(CellError, match="states no decoder_start_token_id"):
        Subject(model, tiny_tokenizer(closed=True))


def test_tokens_of_a_text_have_no_losses_of_their_own(subject):
    with pytest.raises(CellError, match="scores a reference after a prompt"):
        subject.token_losses([random_ids(N)], 1)


def test_a_t5_has_no_limit_of_positions(subject):
    assert subject.max_positions is None
    prompt, reference = random_ids(600), random_ids(M)
    expected = plain_loss(subject.huggingface()[0], prompt, reference)
    assert subject.losses([prompt], reference) == pytest.approx(expected, abs=1e-5)


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
    "kind", ["gpt_neox", "opt", "gpt_neo", "gpt2", "llama", "t5", "t5 v1.1"]
)
def test_what_is_written_is_what_transformers_writes(kind):
    model = model_of(kind)
    tokenizer = tiny_tokenizer(closed=model.config.is_encoder_decoder)
    subject = Subject(model, tokenizer, batch_size=3)
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
