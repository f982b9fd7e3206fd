import numpy as np
import pytest

from harness.data import Example
from harness.subject import Subject, TokenRules
from harness.testing import tiny_model
from harness_plugins.attacks.multiflip import MultiFlip
from harness_plugins.attacks.random import Random
from tests.plugins.letters import (
    best_flips,
    letter_examples,
    letter_subject,
    make,
    plain_losses,
    run,
)

both = pytest.mark.parametrize("control", [None, Random()])


def replay(start, trace):
    """Return the prompts that a trace leads through, the start first."""
    prompts = [np.array(start)]
    for number, step in enumerate(trace, 1):
        assert step["step"] == number
        prompt = prompts[-1].copy()
        prompt[step["positions"]] = step["tokens"]
        assert len(step["positions"]) == (prompt != prompts[-1]).sum() > 0
        prompts.append(prompt)
    return prompts


def test_with_every_token_in_its_lists_it_finds_the_best_of_all_prompts():
    subject, (example,) = letter_subject(), letter_examples(prompt=2)
    attack = make(MultiFlip, steps=12, candidates=400, top_k=49)
    (found,) = run(attack, subject, [example]).values()
    prompt, loss = best_flips(subject, example, 2)
    assert found.prompt_ids.tolist() == prompt
    assert found.trace[-1]["loss"] == pytest.approx(loss, abs=1e-5)


def test_its_trace_climbs_and_can_be_replayed():
    subject, (example,) = letter_subject(), letter_examples(prompt=6)
    (found,) = run(make(MultiFlip, steps=8), subject, [example]).values()
    losses = [step["loss"] for step in found.trace]
    assert losses == sorted(losses)
    path = replay(example.prompt_ids, found.trace)
    assert path[-1].tolist() == found.prompt_ids.tolist()
    again = plain_losses(subject, path[1:], example.reference_ids)
    np.testing.assert_allclose(again, losses, atol=1e-5)


@pytest.mark.parametrize("positions", ["prefix", "suffix"])
def test_what_it_inserts_does_no_less_from_step_to_step(positions):
    subject, (example,) = letter_subject(), letter_examples(prompt=6)
    attack = make(MultiFlip, steps=8, positions=positions, tokens=3)
    (found,) = run(attack, subject, [example]).values()
    losses = [step["loss"] for step in found.trace]
    assert losses == sorted(losses)


def test_a_target_becomes_likelier():
    subject, (example,) = letter_subject(), letter_examples(prompt=6)
    attack = make(MultiFlip, steps=10, target="bad")
    (found,) = run(attack, subject, [example]).values()
    prompts = [example.prompt_ids, found.prompt_ids]
    clean, after = plain_losses(subject, prompts, subject.encode("bad"))
    assert after < clean - 0.1
    assert found.trace[-1]["target_loss"] == pytest.approx(after, abs=1e-5)


@both
@pytest.mark.parametrize("target", [None, "add"])
def test_it_and_its_control_move_among_texts_alone_by_the_rules_of_suites(
    control, target, merging_tokenizer
):
    def texts(rules):
        """Say of every prompt that the attack moved to whether a text encodes to it."""
        subject = Subject(tiny_model(vocab_size=52), merging_tokenizer, rules=rules)
        prompt = subject.encode("abc dab b ca dda bacd ab cadb dda")
        example = Example("e", "d", prompt, subject.encode(" bad"))
        many = make(MultiFlip, steps=12, target=target)
        matched = many if control else None
        (found,) = run(control or many, subject, [example], matched).values()
        return subject.reachable(replay(prompt, found.trace))

    assert not all(texts(None))
    found = texts(TokenRules())
    assert all(found)
    assert len(found) > 3


@both
def test_no_prompt_on_the_way_has_more_flips_than_may_be(control):
    subject, examples = letter_subject(), letter_examples(6, prompt=12)
    limited = make(MultiFlip, flips=3, steps=15)
    found = run(control or limited, subject, examples, limited if control else None)
    ever = []
    for example in examples:
        path = replay(example.prompt_ids, found[example.id].trace)
        changed = [set(np.flatnonzero(p != example.prompt_ids)) for p in path]
        assert max(map(len, changed)) == 3
        assert path[-1].tolist() == found[example.id].prompt_ids.tolist()
        ever.append(len(set().union(*changed)))
    assert max(ever) > 3  # flips were given back for others
