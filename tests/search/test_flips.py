import dataclasses

import numpy as np
import pytest
import torch

from harness.data.document import Example
from harness.search.flips import (
    Flip,
    Pool,
    State,
    draw_flips,
    flip_search,
    ranks,
)
from harness.subject import Subject, alone
from harness.testing import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def subject():
    return Subject(tiny_model(), tiny_tokenizer())


@pytest.fixture
def example(subject):
    ids = np.random.default_rng(1).choice(subject.vocabulary.allowed, 9)
    return Example("e", "d", ids[:6], ids[6:], protected=1)


def search(subject, *arguments, **options):
    return alone(subject, flip_search(subject, *arguments, **options))


def clean(subject, example):
    return alone(subject, State.clean(subject, example))


def test_what_must_stay_last_is_never_written(subject, example):
    closed = dataclasses.replace(example, protected_end=2)
    assert closed.free.tolist() == [False, True, True, True, False, False]

    found = search(subject, closed, everything, flips=9)

    assert {step["position"] for step in found.trace} == {1, 2, 3}


def possible_flips(state, allowed):
    """Return every flip of a free position to another allowed token."""
    flips = (Flip(int(i), int(b)) for i in np.flatnonzero(state.free) for b in allowed)
    return [flip for flip in flips if state.prompt_ids[flip.position] != flip.token]


def everything(pool):
    """Verify all flips there are."""
    allowed = pool.subject.vocabulary.allowed
    yield from pool.verify(possible_flips(pool.state, allowed))


def test_a_step_takes_the_best_flip_of_all(subject, example):
    flips = [(i, int(b)) for i in range(1, 6) for b in subject.vocabulary.allowed]
    prompts = np.tile(example.prompt_ids, (len(flips), 1))
    for prompt, (position, token) in zip(prompts, flips, strict=True):
        prompt[position] = token
    losses = subject.losses(prompts, example.reference_ids)
    tried = dict(zip(flips, losses, strict=True))

    found = search(subject, example, everything, flips=1)

    best = max(tried, key=tried.__getitem__)
    assert (found.trace[0]["position"], found.trace[0]["token"]) == best
    assert found.trace[0]["loss"] == pytest.approx(tried[best], abs=1e-5)
    assert found.trace[0]["loss_rank"] == 1
    assert found.trace[0]["verified"] == len(set(tried)) - 5  # less the five as is


def test_positions_are_distinct_and_the_protected_one_stays(subject, example):
    found = search(subject, example, everything, flips=9)

    positions = [step["position"] for step in found.trace]
    assert sorted(positions) == sorted(set(positions))
    assert found.prompt_ids[0] == example.prompt_ids[0]
    changed = np.flatnonzero(found.prompt_ids != example.prompt_ids)
    assert sorted(positions) == changed.tolist()


def test_the_trace_replays_to_the_prompt_and_its_losses(subject, example):
    found = search(subject, example, everything, flips=3)

    prompt = example.prompt_ids.copy()
    for number, step in enumerate(found.trace, 1):
        prompt[step["position"]] = step["token"]
        loss = subject.exact_losses([prompt], example.reference_ids)[0]
        assert step["step"] == number
        assert step["loss"] == pytest.approx(loss, abs=1e-5)
    assert prompt.tolist() == found.prompt_ids.tolist()


def test_a_flip_that_does_not_improve_is_not_made(subject, example):
    before = subject.exact_losses([example.prompt_ids], example.reference_ids)[0]

    def worsen(pool):
        yield from everything(pool)
        worse = [pool.flips[i] for i in np.flatnonzero(pool.losses < before - 1e-3)]
        rest = Pool(pool.subject, pool.state, pool.reference_ids)
        yield from rest.verify(worse)
        pool.flips, pool.prompts, pool.losses = rest.flips, rest.prompts, rest.losses
        assert pool.flips

    found = search(subject, example, worsen, flips=3)

    assert found.prompt_ids.tolist() == example.prompt_ids.tolist()
    assert found.trace == ()


def test_ties_go_to_the_lowest_token(example):
    made = set()
    for seed in range(4):  # the flips raise the loss of some of these models
        model = tiny_model(seed=seed)
        rows = model.get_input_embeddings().weight.data
        rows[:] = rows[5]  # all tokens are read alike, so that all flips are equal
        rows[example.prompt_ids[1:]] = rows[5].flip(0)  # but for what stands there
        subject = Subject(model, tiny_tokenizer())
        alike = {*subject.vocabulary.allowed.tolist()} - {*example.prompt_ids.tolist()}
        first, second, *_, last = sorted(alike)

        def explore(pool, tokens=(last, first, second)):
            yield from pool.verify([Flip(4, tokens[0])])
            yield from pool.verify([Flip(4, tokens[1]), Flip(4, tokens[2])])

        found = search(subject, example, explore, flips=1)
        made |= {(step["position"], step["token"]) for step in found.trace}

    assert made == {(4, first)}


def test_success_stops_the_search(subject, example):
    whole = search(subject, example, everything, flips=4)
    before = subject.exact_losses([example.prompt_ids], example.reference_ids)[0]
    rises = [np.expm1(step["loss"] - before) for step in whole.trace]
    threshold = (rises[0] + rises[1]) / 2

    stopped = search(subject, example, everything, flips=4, stop_on_success=threshold)

    assert stopped.trace == whole.trace[:2]


def test_verifying_twice_costs_once(subject, example):
    pool = Pool(subject, clean(subject, example), example.reference_ids)
    with subject.metered() as meter:
        alone(subject, pool.verify([Flip(1, 70), Flip(1, 70), Flip(2, 71)]))
        alone(subject, pool.verify([Flip(2, 71)]))

    assert meter.sequences_forward == 2


def lists_of(state, allowed):
    return {int(i): allowed for i in np.flatnonzero(state.free)}


def test_drawn_flips_are_uniform_over_free_positions_and_other_tokens(subject, example):
    state, allowed = clean(subject, example), subject.vocabulary.allowed[:40]
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(possible_flips(state, allowed), 0)

    for _ in range(1000):
        drawn = draw_flips(state, lists_of(state, allowed), rng, 20)
        assert len(set(drawn)) == 20
        for flip in drawn:
            counts[flip] += 1

    expected = 20_000 / len(counts)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    degrees = len(counts) - 1
    assert abs(chi_square - degrees) < 5 * np.sqrt(2 * degrees)


def test_draws_are_uniform_over_positions_and_then_over_their_lists(subject, example):
    state, rng = clean(subject, example), np.random.default_rng(0)
    others = subject.vocabulary.allowed[
        ~np.isin(subject.vocabulary.allowed, [*state.prompt_ids])
    ]
    one, *four = others[:5]
    lists = {2: np.array([one]), 5: np.array(four), 4: others[:0]}

    drawn = [flip for _ in range(4000) for flip in draw_flips(state, lists, rng, 1)]

    assert set(drawn) == {Flip(2, one), *(Flip(5, token) for token in four)}
    share = np.mean([flip == Flip(2, one) for flip in drawn])
    assert share == pytest.approx(1 / 2, abs=0.03)  # 4 standard deviations
    share = np.mean([flip == Flip(5, four[0]) for flip in drawn])
    assert share == pytest.approx(1 / 8, abs=0.02)


def test_drawn_positions_follow_their_weights(subject, example):
    state = clean(subject, example)
    lists = lists_of(state, subject.vocabulary.allowed)
    weights = np.array([0, 0.7, 0.1, 0.1, 0.05, 0.05])

    drawn = draw_flips(state, lists, np.random.default_rng(0), 100, weights)

    share = np.mean([flip.position == 1 for flip in drawn])
    assert share == pytest.approx(0.7, abs=0.15)  # 3 standard deviations


def test_draws_are_distinct_and_where_there_are_few_all_are_drawn(subject, example):
    state, rng = clean(subject, example), np.random.default_rng(0)
    lists = lists_of(state, subject.vocabulary.allowed[:3])
    every = possible_flips(state, subject.vocabulary.allowed[:3])

    assert len(set(draw_flips(state, lists, rng, len(every) - 1))) == len(every) - 1
    assert draw_flips(state, lists, rng, len(every)) == every
    assert draw_flips(state, {}, rng, 5) == []


def test_scaled_gains_are_gains_over_squared_distances(subject):
    gradient = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    rows = subject.embedding
    expected = {
        int(b): float(
            (rows[b] - rows[70]) @ gradient[0] / torch.dist(rows[b], rows[70]) ** 2
        )
        for b in subject.vocabulary.allowed
        if b != 70
    }

    [gains] = subject.gains(np.array([70]), gradient, scaled=True)

    finite = torch.isfinite(gains).nonzero().flatten().tolist()
    assert finite == sorted(expected)
    assert gains[finite].tolist() == pytest.approx(
        [expected[b] for b in finite], rel=1e-3, abs=1e-6
    )


def test_ranks_start_at_one_for_the_highest_and_share_ties():
    assert ranks(np.array([0.5, 2.0, 0.5, -1.0])) == [2, 1, 2, 4]
