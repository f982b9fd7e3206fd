"""Encoder-decoder models are trained on pairs, and every arm on the same ones."""

import json

import numpy as np
import pytest
import torch

from harness.base import Store, UsageError
from harness.data import IGNORED, Corpora, CorpusSection, count_tokens, pair_blocks
from harness.models.checkpoints import CheckpointOptions
from harness.models.losses import BlockLosses
from harness.models.recovery import held_out_losses
from harness.subject import Meter
from harness.testing import TEXT, tiny_model, tiny_tokenizer
from harness_plugins.constraints.none import Unconstrained
from harness_plugins.constraints.softplus import Softplus, SoftplusOptions
from harness_plugins.models.t5 import T5Models
from tests.models.arms import recovery, whole_and_in_parts

pytestmark = pytest.mark.transformers5

METER = Meter(torch.device("cpu"))
ADAPTER = T5Models(CheckpointOptions(path="unused"))
SECTION = recovery(context=24, learning_rate=3e-3, evaluation_tokens=300)


@pytest.fixture
def corpora(tmp_path):
    rng = np.random.default_rng(0)
    words = TEXT.split()
    file = tmp_path / "pairs.jsonl"
    rows = []
    for _ in range(60):
        chosen = rng.choice(words, rng.integers(3, 30))
        rows.append({"d": " ".join(chosen), "s": " ".join(chosen[:3]), "text": "the"})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = {"path": str(file), "prompt": "d", "reference": "s", "prefix": "sum: "}
    sections = {
        "train": CorpusSection(**pairs, slice=":40"),
        "held-out": CorpusSection(**pairs, slice="40:"),
        "texts": CorpusSection(path=str(file)),
    }
    return Corpora(sections, Store(tmp_path / "store"))


@pytest.fixture
def place(recovering, corpora):
    """Return a function that recovers a fresh model of an arm, in a folder."""

    def run(constraint, work="work", section=SECTION, **more):
        model, recovered = recovering("t5", constraint, section, corpora, work, **more)
        return model, recovered.summary

    return run


def blocks_of(corpora, tmp_path, tokens=1500, context=24):
    tokenizer, store = tiny_tokenizer(closed=True), Store(tmp_path / "store")
    return pair_blocks(corpora, "train", tokenizer, "tiny", context, tokens, store)


def test_pairs_are_what_the_tokenizer_makes_of_both_texts(corpora, tmp_path):
    tokenizer = tiny_tokenizer(closed=True)
    blocks = blocks_of(corpora, tmp_path)
    documents = list(corpora.all_documents("train"))
    for block, document in zip(blocks, documents, strict=False):
        prompt, reference = (half[half != IGNORED] for half in np.split(block, 2))
        whole = tokenizer(document.text)["input_ids"]
        expected = whole if len(whole) <= 24 else [*whole[:23], 0]
        assert prompt.tolist() == expected
        assert reference.tolist() == tokenizer(document.reference)["input_ids"]
    lengths = [count_tokens(block) for block in blocks]
    assert sum(lengths[:-1]) < 1500 <= sum(lengths) or len(blocks) == 40


def test_the_loss_of_a_pair_is_that_of_plain_transformers(corpora, tmp_path):
    model = tiny_model("t5")
    blocks = np.array(blocks_of(corpora, tmp_path)[:6])
    pairs = torch.as_tensor(blocks.astype(np.int64))
    together = BlockLosses(model)(pairs, each=True)[:, 0]
    found = held_out_losses(BlockLosses(model), blocks, 4, METER)
    for block, one, other in zip(blocks, together.tolist(), found, strict=True):
        halves = (half[half != IGNORED][None] for half in np.split(block, 2))
        prompt, reference = (torch.as_tensor(half).long() for half in halves)
        expected = model(input_ids=prompt, labels=reference).loss.item()
        assert one == pytest.approx(expected, abs=1e-5)
        assert other == pytest.approx(expected, abs=1e-5)


def test_every_arm_sees_the_same_pairs_and_learns(place, corpora, tmp_path):
    lines = []
    _, baseline = place(Unconstrained(), "a", log=lines.append)
    constraint = Softplus(SoftplusOptions(start="clip"))
    model, constrained = place(constraint, "b")
    for summary in (baseline, constrained):
        assert summary.data_sha256 == baseline.data_sha256
        assert summary.loss_after.value < summary.loss_before.value
        assert summary.loss_after.method.startswith("mean over pairs")
    assert all(p.weight.min() > 0 for p in constraint.promised(ADAPTER.anatomy(model)))

    # The budget is in tokens of prompts and references, rounded up to whole steps.
    blocks = blocks_of(corpora, tmp_path)
    mean = count_tokens(blocks) / len(blocks)
    per_step = int(256 / mean)
    assert baseline.steps == -(-1500 // (per_step * mean))
    assert abs(baseline.tokens - baseline.steps * per_step * mean) < 5 * mean
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    assert evaluations[0]["tokens"] >= 300


def test_an_interrupted_training_equals_an_uninterrupted_one_bit_for_bit(place):
    whole_and_in_parts(place, Softplus())


def test_the_micro_batch_changes_no_more_than_rounding(place):
    section = SECTION.model_copy(update={"micro_batch": 1})
    _, one = place(Unconstrained(), "one", section=section)
    _, four = place(Unconstrained(), "four")
    assert one.loss_after.value == pytest.approx(four.loss_after.value, abs=1e-3)


def test_a_corpus_without_references_is_refused_in_a_sentence(place):
    section = SECTION.model_copy(update={"corpus": "texts"})
    with pytest.raises(UsageError, match="corpus texts has no `reference`"):
        place(Unconstrained(), section=section)
