"""The embedded model, at a size that trains in a second."""

import numpy as np
import pydantic
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.data import joined_ids
from harness.data.builtin import python_topics
from harness_plugins.models.scratch import (
    Crops,
    Scratch,
    ScratchOptions,
    initial_model,
    train_tokenizer,
)

SMALL = {
    "vocabulary": 300,
    "width": 16,
    "layers": 2,
    "heads": 2,
    "context": 24,
    "steps": 12,
    "batch": 4,
    "slice": ":10",
}


def scratch(**changes):
    return Scratch(ScratchOptions(**{**SMALL, **changes}))


@pytest.mark.transformers5
def test_it_learns_and_is_kept_as_a_plain_folder(tmp_path):
    model, tokenizer = scratch().load(tmp_path)
    [folder] = (tmp_path / "scratch").iterdir()
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    texts = python_topics()[:10]
    ids = torch.tensor(joined_ids(texts, tokenizer)[:960].reshape(40, 24)).long()
    untrained = initial_model(tokenizer, ScratchOptions(**SMALL))
    with torch.no_grad():
        losses = [
            float(each(ids, labels=ids).loss) for each in (untrained, plain, model)
        ]
    assert losses[1] == losses[2] < losses[0] - 0.3
    assert AutoTokenizer.from_pretrained(folder)("x = 1").input_ids
    assert not (tmp_path / ".work" / "scratch").exists() or not list(
        (tmp_path / ".work" / "scratch").iterdir()
    )


def test_it_is_trained_once_and_the_same_way_anywhere(tmp_path):
    first, _ = scratch().load(tmp_path / "one")
    [folder] = (tmp_path / "one" / "scratch").iterdir()
    changed = (folder / "model.safetensors").stat().st_mtime_ns
    again, _ = scratch().load(tmp_path / "one")
    assert (folder / "model.safetensors").stat().st_mtime_ns == changed
    torch.rand(3)
    other, _ = scratch().load(tmp_path / "two")
    for one, two, three in zip(
        first.parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


def test_loading_leaves_random_streams_where_they_were(tmp_path):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    scratch().load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_fingerprint_is_of_the_recipe_and_known_before_training(tmp_path):
    known = scratch().fingerprint(tmp_path)
    assert known.startswith("recipe:")
    assert not (tmp_path / "scratch").exists()
    assert scratch(dtype="bfloat16").fingerprint(tmp_path / "other") == known
    for change in ({"seed": 1}, {"steps": 13}, {"slice": ":11"}):
        assert scratch(**change).fingerprint(tmp_path) != known


def test_only_the_slice_is_seen(tmp_path):
    held_out = "the held-out documents begin after the slice"
    texts = python_topics()
    tokenizer = train_tokenizer([*texts[:10], held_out * 50], ScratchOptions(**SMALL))
    _, own = scratch().load(tmp_path)
    assert (
        own.get_vocab()
        == train_tokenizer(texts[:10], ScratchOptions(**SMALL)).get_vocab()
    )
    assert own.get_vocab() != tokenizer.get_vocab()


def test_any_text_survives_the_tokenizer():
    tokenizer = train_tokenizer(python_topics()[:10], ScratchOptions(**SMALL))
    assert len(tokenizer) == 300
    for text in ["def f(x):\n    return x\n", "naïve 中文 🙂", "  two  spaces "]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert 0 not in ids
    assert tokenizer.all_special_ids == [0]


def test_documents_are_joined_by_the_end_of_text_token():
    tokenizer = train_tokenizer(python_topics()[:10], ScratchOptions(**SMALL))
    ids = joined_ids(["one", "two"], tokenizer)
    assert tokenizer.decode(ids) == "one<|endoftext|>two<|endoftext|>"


def test_crops_are_runs_of_the_text():
    crops = Crops(np.arange(100, 110), np.array([0, 7, 3]), 3)
    assert [crops[i].tolist() for i in range(len(crops))] == [
        [100, 101, 102],
        [107, 108, 109],
        [103, 104, 105],
    ]


def test_its_networks_are_found_and_can_be_made_monotone(tmp_path):
    adapter = scratch()
    model, _ = adapter.load(tmp_path)
    anatomy = adapter.anatomy(model)
    assert [ffn.layer for ffn in anatomy.ffns] == [0, 1]
    assert all(ffn.gauge_free for ffn in anatomy.ffns)
    assert anatomy.activation_name == "gelu"
    adapter.set_activation(model, "relu")
    assert adapter.anatomy(model).activation_name == "relu"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "width must be a multiple of twice the heads"),
        ({"vocabulary": 100}, "greater than or equal to 257"),
        ({"slice": "70"}, "pattern"),
        ({"lr": 1e-3}, "Extra inputs"),
    ],
)
def test_impossible_options_are_refused(change, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        ScratchOptions(**{**SMALL, **change})


def test_nothing_is_ever_missing():
    assert Scratch().missing() == []
