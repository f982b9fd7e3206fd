"""Recovery treats every arm alike, and can be stopped anywhere."""

import hashlib
import json

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from harness.base import CellError, Store, TrainingDiverged
from harness.data import Corpora, CorpusSection
from harness.models.checkpoints import CheckpointOptions
from harness.models.losses import BlockLosses
from harness.models.reading import Disturbance
from harness.models.recovery import (
    OrderedBlocks,
    held_out_losses,
    replica_order,
    training_order,
    training_plan,
)
from harness.subject import Meter
from harness.testing import tiny_model, tiny_tokenizer
from harness_plugins.constraints.none import Unconstrained
from harness_plugins.constraints.projection import ProjectedWeights, ProjectionOptions
from harness_plugins.constraints.softplus import Softplus, SoftplusOptions
from harness_plugins.models.pythia import Pythia
from tests.models.arms import recovery, whole_and_in_parts

METER = Meter(torch.device("cpu"))
ADAPTER = Pythia(CheckpointOptions(path="unused"))
SECTION = recovery()
CORPORA = {
    "train": CorpusSection(builtin="python-topics", slice=":40"),
    "short": CorpusSection(builtin="python-topics", slice=":1"),
    "held-out": CorpusSection(builtin="python-topics", slice="40:60"),
}


@pytest.fixture
def place(recovering, tmp_path):
    """Return a function that recovers a fresh model of an arm, in a folder."""
    corpora = Corpora(CORPORA, Store(tmp_path / "store"))

    def run(constraint, work="work", section=SECTION, **more):
        model, recovered = recovering(
            "gpt_neox", constraint, section, corpora, work, **more
        )
        return model, recovered.summary

    return run


def test_every_arm_sees_the_same_tokens_in_the_same_order(place):
    hashes = {
        place(constraint, work=f"work{number}")[1].data_sha256
        for number, constraint in enumerate(
            [Unconstrained(), Softplus(), ProjectedWeights()]
        )
    }
    assert len(hashes) == 1
    assert place(Unconstrained(), "other", seed=4)[1].data_sha256 not in hashes


def test_the_recorded_hash_is_of_the_token_ids_in_training_order(place, tmp_path):
    _, summary = place(Unconstrained())
    # All tokens of the corpus, by hand: documents joined by the end-of-text token.
    tokenizer = tiny_tokenizer()
    ids = []
    for document in Corpora(CORPORA, Store(tmp_path / "own")).all_documents("train"):
        encoded = tokenizer(document.text, add_special_tokens=False)["input_ids"]
        ids += [*encoded, tokenizer.eos_token_id]
    blocks = np.array(ids[: 48 * 32], dtype="<i4").reshape(48, 32)
    order = np.random.Generator(np.random.PCG64([3, 0])).permutation(48)
    expected = hashlib.sha256(blocks[order].tobytes()).hexdigest()
    assert summary.data_sha256 == expected
    assert (summary.steps, summary.tokens) == (6, 48 * 32)


def test_epochs_are_permutations_and_a_longer_training_begins_like_a_shorter_one():
    order = training_order(5, 13, seed=1)
    assert sorted(order[:5]) == sorted(order[5:10]) == [0, 1, 2, 3, 4]
    assert order[:5].tolist() != order[5:10].tolist()
    assert training_order(5, 7, seed=1).tolist() == order[:7].tolist()
    assert training_order(5, 13, seed=2).tolist() != order.tolist()


def test_a_replica_has_each_epoch_in_another_order():
    order = training_order(5, 13, seed=1)
    other = replica_order(order, 5, seed=1)
    for epoch in (slice(0, 5), slice(5, 10), slice(10, 13)):
        assert sorted(other[epoch]) == sorted(order[epoch])
    assert other.tolist() != order.tolist()
    assert other.tolist() != replica_order(order, 5, seed=2).tolist()


def test_a_replica_trains_on_the_same_tokens_in_another_order(place):
    summaries = [
        place(Unconstrained(), f"work{x}", replica=x)[1] for x in (False, True)
    ]
    assert len({x.data_sha256 for x in summaries}) == 2
    assert len({x.blocks_sha256 for x in summaries}) == 1
    assert (
        place(Unconstrained(), "w", seed=4)[1].blocks_sha256
        == summaries[0].blocks_sha256
    )


def test_tokens_are_rounded_up_to_whole_steps():
    plan = training_plan(SECTION, seed=0)
    assert (plan.blocks_per_step, plan.steps, plan.warmup_steps) == (8, 6, 0)
    plan = training_plan(SECTION.model_copy(update={"tokens": 256 * 40 + 1}), seed=0)
    assert (plan.steps, plan.warmup_steps) == (41, 2)


@pytest.mark.transformers5
def test_an_interrupted_recovery_equals_an_uninterrupted_one_bit_for_bit(
    place, timeless
):
    whole, lines, again = whole_and_in_parts(place, Softplus())
    assert any("parametrizations" in name for name in whole.state_dict())
    once = [line for line in again if line["kind"] != "resumed"]
    assert timeless(once) == timeless(lines)
    assert json.loads(json.dumps(lines, allow_nan=False)) == lines


def test_the_parametrization_learns_in_a_group_of_its_own(place):
    groups = Softplus().parameter_groups
    model = tiny_model()
    Softplus().apply(ADAPTER, model, 0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    own = [g for g in groups(model, 1e-3, 0.1) if len(g["params"]) == 1]
    assert len(own) == 4
    after, _ = place(Softplus())
    moved = {
        name: float((p.detach() - before[name]).abs().max())
        for name, p in after.named_parameters()
    }
    v = max(moved[name] for name in moved if name.endswith("weight.original"))
    others = max(moved[name] for name in moved if not name.endswith("original"))
    # Six steps of AdamW at 1e-3 move no other weight further than that.
    assert others < 6.5e-3 < v


def test_two_devices_recover_and_evaluate_as_one_does(place):
    noise, found = Disturbance(corrupt=0.2), []
    for devices in (1, 2):
        lines = []
        section = recovery(devices=devices, tokens=512)
        _, summary = place(
            Softplus(),
            f"on-{devices}",
            section,
            disturbance=noise,
            log=lines.append,
        )
        assert (summary.status, summary.steps) == ("trained", 2)
        found.append([line["loss"] for line in lines])
    assert len(found[0]) == 4  # two steps, two evaluations
    assert found[1] == pytest.approx(found[0], rel=1e-6)


@pytest.mark.transformers5
def test_evaluations_are_stated_before_during_and_after(place):
    lines = []
    _, summary = place(Softplus(), log=lines.append)
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    assert [line["step"] for line in evaluations] == [0, 2, 4, 6]
    assert all(line["tokens"] == 640 for line in evaluations)
    assert all(line["minimum_weight"] > 0 for line in evaluations)
    assert summary.loss_before.value == evaluations[0]["loss"]
    assert summary.loss_after.value == evaluations[-1]["loss"]
    low, high = summary.loss_after.interval
    assert low < summary.loss_after.value < high
    assert summary.loss_after.value < summary.loss_before.value


def test_held_out_losses_are_cross_entropies_in_nats():
    model = tiny_model()
    blocks = np.random.default_rng(0).integers(0, 280, (5, 12)).astype(np.int32)
    found = held_out_losses(BlockLosses(model), blocks, 2, METER)
    for block, loss in zip(blocks, found, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor(block[None]).long()).logits[0].double().numpy()
        chosen = log_softmax(logits[:-1], axis=1)[np.arange(11), block[1:]]
        assert loss == pytest.approx(-chosen.mean(), abs=1e-5)


def test_a_projection_holds_after_the_last_step(place):
    model, _ = place(ProjectedWeights(ProjectionOptions(start="clip")))
    promised = ProjectedWeights().promised(ADAPTER.anatomy(model))
    assert len(promised) == 4
    assert all(p.module.weight.min() >= 0 for p in promised)


def test_without_a_validation_corpus_nothing_is_evaluated(place):
    section = SECTION.model_copy(update={"validation": None})
    lines = []
    _, summary = place(Unconstrained(), section=section, log=lines.append)
    assert summary.loss_before is summary.loss_after is None
    assert {line["kind"] for line in lines} == {"train"}


def test_progress_is_in_tokens(place):
    heard = []
    place(Unconstrained(), report=lambda *x: heard.append(x))
    assert heard == [(256 * step, 1536) for step in range(7)]


def test_a_corpus_shorter_than_the_training_is_repeated_in_another_order(place):
    section = SECTION.model_copy(update={"corpus": "short"})
    _, summary = place(Unconstrained(), section=section)
    assert (summary.steps, summary.tokens) == (6, 48 * 32)
    assert place(Unconstrained(), "other")[1].data_sha256 != summary.data_sha256


def test_divergence_names_the_step_and_the_checkpoint(place):
    class Exploding(Unconstrained):
        steps = 0

        def after_step(self, model):
            self.steps += 1
            if self.steps == 5:
                model.get_input_embeddings().weight.data.fill_(float("inf"))

    section = SECTION.model_copy(update={"validation": None})
    with pytest.raises(TrainingDiverged, match=r"at step 6: .*work/checkpoint-4"):
        place(Exploding(), section=section)


def test_a_context_longer_than_the_model_is_refused(place):
    section = SECTION.model_copy(update={"context": 512})
    with pytest.raises(CellError, match="512, but the model has 128 positions"):
        place(Unconstrained(), section=section)


def test_ordered_blocks_hash_as_their_bytes():
    blocks = np.arange(12, dtype=np.int32).reshape(4, 3)
    ordered = OrderedBlocks(blocks, np.array([2, 0, 2]))
    expected = hashlib.sha256(blocks[[2, 0, 2]].astype("<i4").tobytes()).hexdigest()
    assert ordered.sha256() == expected
    assert len(ordered) == 3


def test_the_rate_of_v_follows_the_option(place):
    slow, fast = (
        Softplus(SoftplusOptions(lr_multiplier=factor)) for factor in (0.1, 1.0)
    )
    gains = []
    for constraint, work in ((slow, "slow"), (fast, "fast")):
        _, summary = place(constraint, work)
        gains.append(summary.loss_before.value - summary.loss_after.value)
    assert gains[0] != gains[1]
