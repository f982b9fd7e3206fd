"""Noise and attacks in recovery: what is read changes, what is predicted does not."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from harness.api import Adversarial, Attack, Budget
from harness.base import CellError, Stopped, Store
from harness.data import IGNORED, Corpora, CorpusSection
from harness.models import Disturbance
from harness.models.losses import BlockLosses
from harness.models.reading import Reader
from harness.subject import Meter
from harness.testing import tiny_model, tiny_tokenizer
from harness_plugins.attacks.hotflip import HotFlip, HotFlipOptions
from harness_plugins.constraints.none import Unconstrained
from tests.models.arms import recovery

pytestmark = pytest.mark.transformers5

BLOCKS = np.random.default_rng(0).integers(3, 260, (8, 40)).astype(np.int32)
WRITTEN = 7


def meter():
    return Meter(torch.device("cpu"))


class Stub(Attack):
    """Writes one token at the prompt's first position; looks at what it attacks."""

    name = "stub"

    def __init__(self, model, extra=0):
        super().__init__(self.Options())
        self.model, self.extra, self.seen = model, extra, []

    def run(self, subject, examples, context):
        assert not any(module.training for module in self.model.modules())
        assert not any(p.requires_grad for p in self.model.parameters())
        weight = self.model.get_input_embeddings().weight
        assert torch.equal(subject.embedding, weight)
        gains = subject.gains([WRITTEN], torch.ones(1, weight.shape[1]))[0]
        assert torch.allclose(gains[9], (weight[9] - weight[WRITTEN]).sum(), atol=1e-5)
        for example in examples.test:
            self.seen.append(example)
            subject.losses([example.prompt_ids], example.reference_ids)
            written = np.concatenate([[WRITTEN], example.prompt_ids[1 - self.extra :]])
            yield Adversarial(example.id, written)

    def budget(self, examples):
        return Budget(1, 0)


def reader(model, family="gpt_neox", seed=3, **how):
    tokenizer = tiny_tokenizer(closed=family == "t5")
    return Reader(Disturbance(**how), model, tokenizer, seed=seed)


def pairs():
    rows = np.full((6, 40), IGNORED, dtype=np.int32)
    for row in range(6):
        rows[row, : 12 + row] = BLOCKS[row, : 12 + row]
        rows[row, 20 : 24 + row] = BLOCKS[row, 20 : 24 + row]
    return rows


def test_a_share_of_the_tokens_is_drawn_from_the_vocabulary():
    read, model = [], tiny_model()
    for step in range(200):
        read.append(reader(model, corrupt=0.3)(BLOCKS, step, meter()))
    read = np.array(read)
    wrong = read != BLOCKS
    assert wrong.mean() == pytest.approx(0.3, abs=0.006)  # sigma is 0.0018
    assert (wrong.mean(axis=0) > 0.1).all()  # at every place
    drawn = np.bincount(read[wrong], minlength=300)
    known = sorted(tiny_tokenizer().get_vocab().values())
    assert drawn.sum() == drawn[known].sum()
    assert drawn[known].min() > 0.5 * drawn[known].mean()  # sigma is 0.06 of it


def test_draws_are_keyed_by_seed_and_step_and_leave_global_ones_alone():
    model = tiny_model()
    state = torch.get_rng_state()
    first = reader(model, corrupt=0.3)(BLOCKS, 5, meter())
    assert np.array_equal(first, reader(model, corrupt=0.3)(BLOCKS, 5, meter()))
    for other in (
        reader(model, corrupt=0.3)(BLOCKS, 6, meter()),
        reader(model, corrupt=0.3, seed=4)(BLOCKS, 5, meter()),
    ):
        assert not np.array_equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_of_a_pair_only_the_prompt_is_read_otherwise():
    read = reader(tiny_model("t5"), "t5", corrupt=0.9)(pairs(), 0, meter())
    assert np.array_equal(read[:, 20:], pairs()[:, 20:])
    assert np.array_equal(read == IGNORED, pairs() == IGNORED)
    assert (read != pairs())[:, :12].mean() > 0.8


@pytest.mark.parametrize("family", ["gpt_neox", "t5"])
def test_the_right_tokens_are_predicted_from_those_that_are_read(family):
    model = tiny_model(family).eval()
    blocks = pairs() if family == "t5" else BLOCKS
    read = reader(model, family, corrupt=0.5)(blocks, 0, meter())
    ids, seen = (torch.as_tensor(x.astype(np.int64)) for x in (blocks, read))
    found = BlockLosses(model)(ids, seen, each=True)
    if family == "t5":
        for row in range(len(ids)):
            prompt, reference = seen[row, : 12 + row][None], ids[row, 20 : 24 + row]
            expected = model(input_ids=prompt, labels=reference[None]).loss
            torch.testing.assert_close(found[row, 0], expected)
    else:
        logits = model(seen).logits[:, :-1].flatten(0, 1)
        expected = cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
        torch.testing.assert_close(found.flatten(), expected)


@pytest.mark.parametrize("family", ["gpt_neox", "t5"])
def test_a_share_of_the_blocks_is_attacked_and_the_model_left_as_it_was(family):
    model = tiny_model(family).train()
    model.get_input_embeddings().weight.requires_grad_(False)
    trained = [p.requires_grad for p in model.parameters()]
    blocks = pairs() if family == "t5" else BLOCKS
    stub = Stub(model)
    read_by, spent, changed = reader(model, family, attack=stub, share=0.3), meter(), []
    for step in range(60):
        read = read_by(blocks, step, spent)
        rows = (read != blocks).any(axis=1)
        assert (read[rows, 0] == WRITTEN).all()
        assert np.array_equal(read[:, 1:], blocks[:, 1:])
        changed.append(rows.sum())
        with torch.no_grad():  # the next attack has to see it
            model.get_input_embeddings().weight.mul_(0.99)
    assert np.mean(changed) == pytest.approx(0.3 * len(blocks), abs=0.2)
    assert [p.requires_grad for p in model.parameters()] == trained
    assert all(module.training for module in model.modules())
    assert spent.sequences_forward == len(stub.seen) == sum(changed)
    assert spent.flops > 0


def test_blocks_of_text_are_cut_at_many_places():
    model = tiny_model()
    stub = Stub(model)
    read_by = reader(model, attack=stub, share=1.0)
    for step in range(40):
        read_by(BLOCKS, step, meter())
    lengths = {len(example.prompt_ids) for example in stub.seen}
    assert lengths == {10, 15, 20, 25, 30}  # of 40
    for example in stub.seen:
        whole = [*example.prompt_ids, *example.reference_ids]
        assert whole == BLOCKS[int(example.id)].tolist()


def test_an_attack_that_adds_tokens_is_told():
    model = tiny_model()
    read_by = reader(model, attack=Stub(model, extra=1), share=1.0)
    with pytest.raises(CellError, match="'stub' as stated here adds tokens"):
        read_by(BLOCKS, 0, meter())


def test_noise_is_around_the_attacked_blocks_and_not_in_them():
    model = tiny_model()
    read = reader(model, corrupt=0.5, attack=Stub(model), share=0.5)(BLOCKS, 1, meter())
    wrong = (read != BLOCKS).sum(axis=1)
    assert sorted(wrong)[:4] == [1, 1, 1, 1]
    assert min(sorted(wrong)[4:]) > 8


# --- in a whole training ------------------------------------------------------------

SECTION = recovery(validation=None, tokens=1024, learning_rate=1e-2)


@pytest.fixture
def place(recovering, tmp_path):
    """Return a function that recovers a model against noise and HotFlip."""
    topics = {"train": CorpusSection(builtin="python-topics", slice=":40")}
    corpora = Corpora(topics, Store(tmp_path / "store"))
    options = HotFlipOptions(**HotFlip.in_training)
    how = Disturbance(corrupt=0.2, attack=HotFlip(options), share=0.5)

    def run(work, how=how, **callbacks):
        more = {"disturbance": how, **callbacks}
        return recovering("gpt_neox", Unconstrained(), SECTION, corpora, work, **more)

    return run


def test_a_training_that_was_stopped_ends_with_the_same_weights(place):
    whole, expected = place("whole")
    lines = []
    with pytest.raises(Stopped):
        place("parts", log=lines.append, should_stop=lambda: lines[-1]["step"] == 3)
    parts, found = place("parts")
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)
    assert found.summary.data_sha256 == expected.summary.data_sha256
    assert found.kept.flops == expected.kept.flops


def test_the_budget_is_equal_and_what_the_attack_costs_is_told(place):
    disturbed, own = place("own")
    usual, plain = place("plain", how=None)
    assert own.summary == plain.summary
    assert own.kept.flops > 1.2 * plain.kept.flops
    assert own.kept.sequences_backward > plain.kept.sequences_backward
    before = copy.deepcopy(usual)
    assert any(
        not torch.equal(one, other)
        for one, other in zip(disturbed.parameters(), before.parameters(), strict=True)
    )
