"""Whatever is done to a subject's weights shows; using it does not."""

import numpy as np
import pytest
import torch

from harness.subject import Subject
from harness.testing import tiny_model, tiny_tokenizer

IDS = np.arange(5, 12)


def scale_a_bit(subject):
    weight = next(subject.huggingface()[0].parameters())
    weight.data.view(torch.int32)[3, 1] ^= 1


def swap_two_rows(subject):
    weight = subject.huggingface()[0].get_input_embeddings().weight.data
    weight[[4, 7]] = weight[[7, 4]]


def swap_two_columns(subject):
    weight = subject.huggingface()[0].get_input_embeddings().weight.data
    weight[:, [0, 4]] = weight[:, [4, 0]]


def change_a_bias(subject):
    with torch.no_grad():
        list(subject.huggingface()[0].parameters())[-1][..., -1] += 1


def write_into_the_embedding(subject):
    subject.embedding[3] = subject.embedding[4].clone()


def train(subject):
    subject.huggingface()[0].train()


def hook(subject):
    subject.huggingface()[0].register_forward_hook(lambda *given: None)


CHANGES = [
    scale_a_bit,
    swap_two_rows,
    swap_two_columns,
    change_a_bias,
    write_into_the_embedding,
    train,
    hook,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_shows(subject, change):
    before = subject.fingerprint()
    change(subject)
    assert subject.fingerprint() != before


def test_all_that_a_subject_is_asked_leaves_it_as_it_was(subject):
    before = subject.fingerprint()
    subject.losses([IDS, IDS + 1], IDS)
    [gradient] = subject.gradients([IDS], [IDS])
    subject.gains(IDS, gradient)
    subject.generate([IDS], 3)
    assert subject.fingerprint() == before


def test_a_copy_in_another_precision_is_watched_too():
    subject = Subject(tiny_model(), tiny_tokenizer(), dtype="bfloat16")
    before = subject.fingerprint()
    search = subject._passes.search.model
    assert subject.fingerprint() == before
    next(search.parameters()).data.mul_(2)
    assert subject.fingerprint() != before
