from dataclasses import replace

import numpy as np
import pytest

from harness.data import Example
from harness.subject import Subject, TokenRules
from harness.testing import tiny_model, tiny_tokenizer
from harness_plugins.attacks.gcg import GCG
from harness_plugins.attacks.random import Random
from tests.plugins.letters import (
    letter_examples,
    letter_subject,
    make,
    plain_gains,
    plain_losses,
    run,
)


def iterates(start, trace):
    """Replay a trace: the start and the prompt that each step leads to."""
    prompts = [np.array(start)]
    for number, step in enumerate(trace, 1):
        assert step["step"] == number
        prompt = prompts[step["from"]].copy()
        assert prompt[step["position"]] != step["token"]
        prompt[step["position"]] = step["token"]
        prompts.append(prompt)
    return prompts


@pytest.mark.parametrize("target", [None, "bad"])
def test_with_every_candidate_it_is_exhaustive_coordinate_search(target):
    """It ascends without a target, and descends the target's loss with one."""
    subject, (example,) = letter_subject(), letter_examples()
    reference = example.reference_ids if target is None else subject.encode(target)
    sign = 1 if target is None else -1
    prompt, path = example.prompt_ids, [example.prompt_ids]
    for _ in range(4):
        changes = [
            np.concatenate([prompt[:i], [b], prompt[i + 1 :]])
            for i in range(4)
            for b in range(1, 50)
            if b != prompt[i]
        ]
        losses = sign * plain_losses(subject, changes, reference)
        prompt = changes[int(losses.argmax())]  # also where that is worse than before
        path.append(prompt)
    losses = sign * plain_losses(subject, path, reference)
    attack = make(GCG, steps=4, target=target, candidates=4 * 49, top_k=49)

    (found,) = run(attack, subject, [example]).values()

    replayed = iterates(example.prompt_ids, found.trace)
    assert [x.tolist() for x in replayed] == [x.tolist() for x in path]
    assert found.prompt_ids.tolist() == path[int(losses.argmax())].tolist()
    kind = "loss" if target is None else "target_loss"
    stated = [sign * step[kind] for step in found.trace]
    assert stated == pytest.approx(losses[1:], abs=1e-5)
    best = [sign * step[f"best_{kind}"] for step in found.trace]
    assert best == pytest.approx(np.maximum.accumulate(losses)[1:], abs=1e-5)


def test_no_step_pairs_a_loss_with_the_ids_of_another():
    subject, (example,) = letter_subject(), letter_examples(prompt=8)
    attack = make(GCG, steps=12, candidates=10, top_k=8)

    (found,) = run(attack, subject, [example]).values()

    prompts = iterates(example.prompt_ids, found.trace)
    losses = plain_losses(subject, prompts, example.reference_ids)
    stated = [step["loss"] for step in found.trace]
    assert stated == pytest.approx(losses[1:], abs=1e-5)
    assert [step["from"] for step in found.trace] == [*range(12)]
    assert np.any(np.diff(losses) < 0)  # the current iterate is not kept
    assert found.prompt_ids.tolist() == prompts[int(losses.argmax())].tolist()


def test_candidates_are_from_the_tokens_of_highest_first_order_gain(family):
    subject, examples = letter_subject(family), letter_examples(6, prompt=6)

    found = run(make(GCG, steps=1, candidates=6, top_k=3), subject, examples)

    for example in examples:
        (step,) = found[example.id].trace
        gains = plain_gains(subject, example)
        here = [flip for flip in gains if flip[0] == step["position"]]
        best = sorted(here, key=gains.__getitem__)[-3:]
        assert (step["position"], step["token"]) in best
        assert step["verified"] == 6


def test_a_buffer_goes_on_from_the_best_so_far():
    subject, (example,) = letter_subject(), letter_examples(prompt=6)
    attack = make(GCG, steps=15, candidates=8, top_k=20, buffer_size=2)

    (found,) = run(attack, subject, [example]).values()

    losses = [subject.exact_losses([example.prompt_ids], example.reference_ids)[0]]
    losses += [step["loss"] for step in found.trace]
    for step in found.trace:
        assert step["from"] == int(np.argmax(losses[: step["step"]]))
    again = len({step["from"] for step in found.trace})
    assert found.trace[-1]["gradients"] == again < 15  # one for each, however often
    for one, before in zip(found.trace[1:], found.trace, strict=False):
        more = one["gradients"] == before["gradients"]  # for what no gradient cost
        assert one["verified"] in ((9, 10, 11) if more else (8,))


def test_a_text_may_stand_there_at_first():
    subject, (example,) = letter_subject(), letter_examples()
    attack = make(GCG, positions="suffix", tokens=5, start="ab", steps=1)

    (found,) = run(attack, subject, [example]).values()

    start = [*example.prompt_ids, *subject.encode("ababa")]
    (step,) = found.trace
    changed = {*np.flatnonzero(found.prompt_ids != start).tolist()}
    assert changed <= {step["position"]}


def test_with_a_target_the_reference_has_no_part_in_the_search():
    subject, (example,) = letter_subject(), letter_examples(prompt=6)
    other = replace(example, reference_ids=example.reference_ids[::-1].copy())
    attack = make(GCG, steps=3, candidates=10, target="Q")

    (one,), (same,) = (run(attack, subject, [x]).values() for x in (example, other))

    assert one.prompt_ids.tolist() == same.prompt_ids.tolist()
    last = subject.exact_losses([one.prompt_ids], subject.encode("Q"))[0]
    first = subject.exact_losses([example.prompt_ids], subject.encode("Q"))[0]
    assert last == pytest.approx(min(s["target_loss"] for s in one.trace), abs=1e-5)
    assert last < first


@pytest.mark.parametrize("control", [None, Random()])
def test_only_what_a_text_encodes_to_is_verified_by_the_rules_of_suites(
    control, merging_tokenizer
):
    def texts(rules):
        """Run the attack; say of each iterate whether a text encodes to it."""
        subject = Subject(tiny_model(vocab_size=52), merging_tokenizer, rules=rules)
        prompt = subject.encode("dabacadbcbdcaab")
        example = Example("e", "d", prompt, subject.encode("abd"))
        gcg = make(GCG, steps=8, candidates=20)
        matched = gcg if control else None
        (found,) = run(control or gcg, subject, [example], matched).values()
        return subject.reachable(iterates(prompt, found.trace))

    assert not all(texts(None))
    assert texts(TokenRules()) == [True] * 9


@pytest.mark.parametrize("positions", ["prefix", "suffix"])
def test_what_is_drawn_at_first_is_text_too(positions):
    subject = Subject(tiny_model(), tiny_tokenizer(), rules=TokenRules())
    prompt = subject.encode(" the cat sat on the mat")
    example = Example("e", "d", prompt, subject.encode(" dog"))
    block = {"positions": positions, "tokens": 8}

    (found,) = run(
        make(GCG, steps=3, candidates=30, **block), subject, [example]
    ).values()

    assert len(found.trace) == 3
    assert subject.reachable([found.prompt_ids]) == [True]


def test_no_more_tokens_differ_than_may():
    subject, examples = letter_subject(), letter_examples(3, prompt=8)

    found = run(make(GCG, flips=2, steps=8, candidates=10), subject, examples)

    for example in examples:
        for prompt in iterates(example.prompt_ids, found[example.id].trace):
            assert (prompt != example.prompt_ids).sum() <= 2
