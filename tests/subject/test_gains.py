import numpy as np
import pytest
import torch

from harness.subject.gains import PLACES, Gains
from harness.subject.scheduler import Ask, Place, Slopes
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


@pytest.mark.parametrize("near", [None, torch.arange(7 * V).view(7, V) % 3 > 0])
def test_the_best_flips_are_those_of_highest_gain_anywhere(table, near):
    forbidden = torch.arange(V) < 4
    generator = torch.Generator().manual_seed(1)
    asked = [
        Slopes(
            np.array(tokens),
            np.array(positions),
            torch.randn(7, D, generator=generator),
            k,
            near,
        )
        for tokens, positions, k in (([9, 12, 5], [0, 2, 6], 8), ([7], [3], 99))
    ]

    found = Gains(table, forbidden).flips(asked)()

    for slopes, ranked in zip(asked, found, strict=True):
        every = {}
        for token, position in zip(slopes.tokens, slopes.positions, strict=True):
            own = None if near is None else near[position]
            place = Place(int(token), slopes.gradient[position], V, False, own)
            for one in brute_force(table, forbidden, place):
                gain = float((table[one] - table[token]) @ slopes.gradient[position])
                every[int(position), one] = gain
        best = sorted(every, key=every.get, reverse=True)[: slopes.k]
        assert [*zip(ranked.positions, ranked.tokens, strict=True)] == best
        assert ranked.gains == pytest.approx([every[one] for one in best], rel=1e-5)


def test_flips_to_what_no_gradient_tells_apart_are_not_left_out(table):
    gradient = torch.full((2, D), torch.nan)
    slopes = Slopes(np.array([9]), np.array([1]), gradient, 5)

    [ranked] = Gains(table, torch.arange(V) < 4).flips([slopes])()

    assert len(ranked.tokens) == 5


def test_company_changes_nothing():
    subject = Subject(tiny_model(), tiny_tokenizer())
    slopes = torch.randn(20, subject.embedding.shape[1])
    asked = [Place(5 + i, slope, 3, True) for i, slope in enumerate(slopes)]
    prompts = [
        Slopes(np.arange(5, 9) + i, np.arange(i, i + 4), slopes, 6 + i)
        for i in range(3)
    ]

    together = subject.launched(Ask.TOKENS, asked)()
    ranked = subject.launched(Ask.FLIPS, prompts)()

    for place, ids in zip(asked, together, strict=True):
        [alone] = subject.launched(Ask.TOKENS, [place])()
        assert np.array_equal(alone, ids)
    for prompt, flips in zip(prompts, ranked, strict=True):
        [alone] = subject.launched(Ask.FLIPS, [prompt])()
        assert all(map(np.array_equal, alone, flips))


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
