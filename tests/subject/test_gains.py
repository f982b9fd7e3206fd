import numpy as np
import pytest
import torch

from harness.subject.gains import PLACES, Gains
from harness.subject.scheduler import Ask, Place
from harness.subject.subject import Subject
from harness.testing import tiny_model, tiny_tokenizer

V, D = 30, 6


@pytest.fixture
def table():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(V, D, generator=generator)


def places(count, k=5, scaled=False, near=None):
    generator = torch.Generator().manual_seed(count)
    slopes = torch.randn(count, D, generator=generator)
    return [Place(3 + i, slope, k, scaled, near) for i, slope in enumerate(slopes)]


def brute_force(table, forbidden, place):
    """Return the ids of highest gain, by one number for each."""
    current = table[place.token]
    gains = {}
    for i, row in enumerate(table):
        gain = float((row - current) @ place.slope)
        if place.scaled and i != place.token:
            gain /= float((row - current).square().sum())
        near = place.near is None or place.near[i]
        if i != place.token and not forbidden[i] and near:
            gains[i] = gain
    return sorted(gains, key=gains.get, reverse=True)[: place.k]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("near", [None, torch.arange(V) % 3 == 0])
def test_the_best_tokens_are_those_of_highest_gain(table, scaled, near):
    forbidden = torch.arange(V) < 4
    asked = places(PLACES["cpu"] + 3, scaled=scaled, near=near)
    asked += places(2, k=40, scaled=scaled)  # more than there are

    found = Gains(table, forbidden).best(asked)()

    assert [ids.tolist() for ids in found] == [
        brute_force(table, forbidden, place) for place in asked
    ]


def test_company_changes_nothing():
    subject = Subject(tiny_model(), tiny_tokenizer())
    slopes = torch.randn(20, subject.embedding.shape[1])
    asked = [Place(5 + i, slope, 3, True) for i, slope in enumerate(slopes)]

    together = subject.launched(Ask.TOKENS, asked)()

    for place, ids in zip(asked, together, strict=True):
        [alone] = subject.launched(Ask.TOKENS, [place])()
        assert np.array_equal(alone, ids)


def test_norms_are_those_of_each_token_whoever_asks():
    gradients = [torch.randn(n, D, dtype=torch.float32) for n in (1, 4, 3)]
    expected = [
        [sum(float(x) ** 2 for x in row) ** 0.5 for row in gradient]
        for gradient in gradients
    ]
    subject = Subject(tiny_model(), tiny_tokenizer())

    together = subject.launched(Ask.NORMS, gradients)()

    for gradient, found, norms in zip(gradients, together, expected, strict=True):
        assert found == pytest.approx(norms, rel=1e-12)
        [alone] = subject.launched(Ask.NORMS, [gradient])()
        assert np.array_equal(alone, found)
