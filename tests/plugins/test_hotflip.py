import numpy as np
import pydantic
import pytest

from harness_plugins.attacks.hotflip import HotFlip, HotFlipOptions
from tests.plugins.letters import (
    best_flips,
    letter_examples,
    letter_subject,
    make,
    plain_gains,
    rises,
    run,
)


def textbook(**options):
    return make(HotFlip, candidates_from="gradient", **options)


@pytest.mark.parametrize("seed", range(3))
def test_with_every_candidate_one_flip_is_exhaustive_search(seed):
    subject, (example,) = letter_subject(seed=seed), letter_examples(seed=seed)
    expected, loss = best_flips(subject, example, 1)

    (found,) = run(textbook(flips=1, candidates=4 * 49), subject, [example]).values()

    assert found.prompt_ids.tolist() == expected
    assert found.trace[0]["loss"] == pytest.approx(loss, abs=1e-5)


def test_with_an_unbounded_beam_two_flips_are_exhaustive_search():
    subject, (example,) = letter_subject(), letter_examples(prompt=2)
    expected, _ = best_flips(subject, example, 2)
    attack = textbook(flips=2, candidates=2 * 49, beam_width=2 * 48 + 1)

    (found,) = run(attack, subject, [example]).values()

    assert found.prompt_ids.tolist() == expected


@pytest.mark.parametrize("tokens", [3, 8, 24, 512])
@pytest.mark.parametrize("candidates_from", ["ascent", "gradient"])
@pytest.mark.parametrize("candidates", [4, 64])
def test_where_every_token_may_change_it_takes_four_times_the_passes_at_most(
    tokens, candidates_from, candidates
):
    def passes(attack):
        budget = attack.budget(1)
        return budget.forward + 2 * budget.backward

    stated = make(
        HotFlip, flips=3, candidates=candidates, candidates_from=candidates_from
    )
    free = HotFlip(stated.unbounded(tokens))
    assert free.options.flips == tokens
    # Each token takes a pass, a gradient as two, and what is verified for that.
    least = tokens * (3 + (4 if candidates_from == "ascent" else 1)) + 2
    assert passes(free) <= max(4 * passes(stated), least)
    if tokens <= 3 * 4:
        assert free.options.candidates == candidates


def test_a_beam_finds_no_less_than_greedy_search():
    subject, examples = letter_subject(), letter_examples(3, prompt=4)

    greedy, beam = (
        rises(subject, examples, run(attack, subject, examples))
        for attack in (
            textbook(flips=2, candidates=4 * 49),
            textbook(flips=2, candidates=4 * 49, beam_width=4),
        )
    )

    assert np.mean(beam) >= np.mean(greedy)


@pytest.mark.parametrize("k", [1, 5])
def test_the_textbook_verifies_the_flips_of_highest_first_order_gain(family, k):
    subject, (example,) = letter_subject(family), letter_examples(prompt=6)
    gains = plain_gains(subject, example)
    ranked = sorted(gains, key=gains.__getitem__, reverse=True)

    (found,) = run(textbook(flips=1, candidates=k), subject, [example]).values()

    for step in found.trace:
        flip = step["position"], step["token"]
        assert flip in ranked[:k]
        assert ranked.index(flip) + 1 == step["gain_rank"]
        assert step["gain"] == pytest.approx(gains[flip], rel=1e-3, abs=1e-6)


def test_a_beam_of_the_default_is_refused():
    with pytest.raises(pydantic.ValidationError, match="needs candidates_from"):
        HotFlipOptions(beam_width=2)


@pytest.mark.parametrize("steps", [1, 2])  # of ascent, the first is a drawn start
@pytest.mark.parametrize("source", ["ascent", "gradient"])
def test_stop_on_success_stops_at_the_first_step_that_suffices(source, steps):
    subject, (example,) = letter_subject(), letter_examples(prompt=8)
    clean = subject.exact_losses([example.prompt_ids], example.reference_ids)[0]
    (whole,) = run(make(HotFlip, candidates_from=source), subject, [example]).values()
    enough = np.expm1(whole.trace[steps - 1]["loss"] - 1e-4 - clean)
    attack = make(HotFlip, candidates_from=source, stop_on_success=enough)

    (stopped,) = run(attack, subject, [example]).values()

    assert list(stopped.trace) == list(whole.trace[:steps])
