import numpy as np
import pytest

from harness.subject.sharing import common, shapes_of
from tests.subject.plain import random_ids


def flipped(base, count, seed=0):
    """Return prompts [count, n] that differ from the base at one position each."""
    rng = np.random.default_rng(seed)
    prompts = np.tile(base, (count, 1))
    positions = rng.integers(0, len(base), count)
    prompts[np.arange(count), positions] += 1
    return prompts, positions


def test_candidates_start_where_their_token_was_changed():
    base = random_ids(20)
    prompts, positions = flipped(base, 40)

    found, starts = common(prompts)

    assert found.tolist() == base.tolist()
    assert starts.tolist() == positions.tolist()


def test_a_start_shares_nothing_but_what_is_equal():
    """Whatever the prompts are, and whatever the base is."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        prompts = rng.integers(0, 3, (rng.integers(2, 9), 6))
        base, starts = common(prompts)
        for prompt, start in zip(prompts, starts, strict=True):
            assert start <= 5
            assert (prompt[:start] == base[:start]).all()


def test_every_pair_is_in_one_shape_once_and_bases_are_its_own():
    many = [flipped(random_ids(n, seed=n), 9, seed=n)[0] for n in (12, 20, 12)]
    pairs = [
        (prompt, random_ids(5, seed=i))
        for i, prompts in enumerate(many)
        for prompt in prompts
    ]
    pairs.append((random_ids(12), random_ids(5, seed=0)))
    pairs.append((random_ids(3), random_ids(2)))

    shapes = shapes_of(pairs)

    items = [item for shape in shapes for item in shape.items]
    assert sorted(item.pair for item in items) == list(range(len(pairs)))
    assert len(shapes) == 3
    for shape in shapes:
        starts = [item.start for item in shape.items]
        assert starts == sorted(starts)
        lengths = {tuple(map(len, pairs[item.pair])) for item in shape.items}
        assert len(lengths) == 1
        for item in shape.items:
            if item.start:
                shared = shape.bases[item.base][: item.start]
                assert (pairs[item.pair][0][: item.start] == shared).all()
    assert sum(len(shape.bases) for shape in shapes) == 3


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_candidates_are_read_whole(count):
    prompts, _ = flipped(random_ids(12), count)
    (shape,) = shapes_of([(prompt, random_ids(4)) for prompt in prompts])

    assert not shape.bases
    assert [item.start for item in shape.items] == [0] * count


def test_no_more_bases_than_allowed_are_held_together():
    pairs = [
        (prompt, random_ids(4, seed=i))
        for i in range(5)
        for prompt in flipped(random_ids(12, seed=i), 8)[0]
    ]

    shapes = shapes_of(pairs, most_bases=2)

    assert [len(shape.bases) for shape in shapes] == [2, 2, 1]
    assert sum(len(shape.items) for shape in shapes) == 40


def test_nothing_is_shared_that_saves_too_little():
    base = random_ids(20)
    prompts, positions = flipped(base, 40)
    pairs = [(prompt, base) for prompt in prompts]
    saved = int(positions.sum() - positions.max())

    [shared] = shapes_of(pairs, least=saved)
    [whole] = shapes_of(pairs, least=saved + 1)

    assert [item.start for item in shared.items] == sorted(positions)
    assert not whole.bases
    assert {item.start for item in whole.items} == {0}
