import itertools

import numpy as np
import pytest
import torch

from harness.data.document import Example
from harness.search.flips import Flip, State, draw_flips, flip_search
from harness.search.guide import Look
from harness.search.policy import FlipPolicy
from harness.subject import Draft, alone, lockstep
from harness.subject.rules import TokenRules
from harness.subject.subject import Subject
from harness.testing import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.transformers5
TEXT = "the cat sat on the mat; that dog"


@pytest.fixture(scope="module")
def make():
    """Return a function that makes a subject under some rules."""
    model = tiny_model()

    def subject(**rules):
        return Subject(
            model,
            tiny_tokenizer(),
            rules=TokenRules(**{"reachable_only": False, **rules}),
        )

    return subject


@pytest.fixture(scope="module")
def example(make):
    ids = make().encode(TEXT)
    return Example("e", "d", ids, make().encode(" the other"), protected=1)


def possible(subject, example):
    """Return every flip and its prompt, by brute force and free positions alone."""
    for position in np.flatnonzero(example.free):
        for token in subject.vocabulary.allowed:
            if token != example.prompt_ids[position]:
                prompt = example.prompt_ids.copy()
                prompt[position] = token
                yield Flip(int(position), int(token)), prompt


def cosine(subject, one, other):
    rows = subject.huggingface()[0].get_input_embeddings().weight.double()
    return float(torch.cosine_similarity(rows[int(one)], rows[int(other)], dim=0))


def test_without_rules_every_flip_of_a_free_position_is_permitted(make, example):
    policy = FlipPolicy.of(make(), example)
    flips, prompts = zip(*possible(make(), example), strict=True)

    assert all(policy.permits(prompts))
    assert not make().vocabulary.rules.limit_flips
    assert 0 not in {flip.position for flip in flips}


def test_flips_stay_near_the_clean_token_in_cosine(make, example):
    subject = make(min_cosine=0.25)
    policy = FlipPolicy.of(subject, example)
    flips, prompts = zip(*possible(subject, example), strict=True)
    clean = example.prompt_ids
    expected = [cosine(subject, clean[f.position], f.token) >= 0.25 for f in flips]

    assert policy.permits(prompts) == expected
    assert 0 < sum(expected) < len(expected)
    for position in np.flatnonzero(example.free):
        near = policy.writable(position, subject.vocabulary.allowed)
        others = {t for t in near.tolist() if t != clean[position]}
        assert others == {
            flip.token
            for flip, ok in zip(flips, expected, strict=True)
            if ok and flip.position == position
        }


def test_the_cosine_is_to_the_clean_token_not_to_the_last_one(make, example):
    """Two steps, each near enough, must not lead farther than one may."""
    subject = make(min_cosine=0.25)
    policy = FlipPolicy.of(subject, example)
    clean = int(example.prompt_ids[3])
    allowed = subject.vocabulary.allowed
    near = [int(b) for b in allowed if cosine(subject, clean, b) > 0.3]
    far = next(
        int(c)
        for b, c in itertools.product(near, allowed)
        if cosine(subject, b, c) > 0.3 and cosine(subject, clean, c) < 0.2
    )
    prompt = example.prompt_ids.copy()
    prompt[3] = far

    assert policy.permits([prompt]) == [False]


def test_stop_words_are_kept(make, example):
    subject = make(keep_stop_words=True)
    policy = FlipPolicy.of(subject, example)
    texts = subject.vocabulary.texts(example.prompt_ids)
    stop = {i for i, text in enumerate(texts) if text.strip() in ("on", "the", "that")}
    assert {0} < stop < set(range(len(texts)))

    assert set(np.flatnonzero(policy.movable)) == set(range(1, len(texts))) - stop


def test_no_more_than_a_share_of_the_prompt_changes(make, example):
    free = int(example.free.sum())
    subject = make(max_changed=3.5 / free)

    def explore(pool):
        free = map(int, np.flatnonzero(pool.state.free))
        allowed = subject.vocabulary.allowed[:10].tolist()
        flips = (Flip(i, token) for i in free for token in allowed)
        yield from pool.verify(f for f in flips if not pool.state.has(f))

    (found,) = lockstep(
        subject, [flip_search(subject, example, explore, flips=free, beam_width=2)]
    )

    assert (found.prompt_ids != example.prompt_ids).sum() == 3
    assert FlipPolicy.of(make(max_changed=1e-9), example).most_changed == 1
    assert FlipPolicy.of(make(max_changed=1.0), example).most_changed == free


def test_flips_lead_to_text_that_encodes_to_themselves(make, example):
    subject = make(reachable_only=True)
    prompts = [prompt for _, prompt in possible(subject, example)]
    expected = [
        subject.encode(subject.decode(prompt)).tolist() == prompt.tolist()
        for prompt in prompts
    ]

    assert FlipPolicy.of(subject, example).permits(prompts) == expected
    assert 0 < sum(expected) < len(expected)


def test_changes_that_break_words_are_taken_back(merging_tokenizer):
    """Not all of them; and none of prompts that are reachable as they are."""
    rules = TokenRules(reachable_only=True)
    subject = Subject(tiny_model(vocab_size=52), merging_tokenizer, rules=rules)
    clean = subject.encode("abc dab b ca dda bacd ab cadb dda")
    example = Example("e", "d", clean, subject.encode(" dog"), protected=1)
    policy, rng = FlipPolicy.of(subject, example), np.random.default_rng(0)
    prompts = np.tile(clean, (80, 1))
    for prompt in prompts:
        where = rng.choice(np.flatnonzero(example.free), 4, replace=False)
        prompt[where] = rng.choice(subject.vocabulary.allowed, 4)
    fine = [p.tolist() for p in prompts if subject.reachable([p])[0]]
    assert 0 < len(fine) < 20

    found = alone(subject, policy.mended(list(prompts), since=clean))

    assert all(subject.reachable(found))
    assert 60 < len(found) <= 80
    assert all(ids in [p.tolist() for p in found] for ids in fine)
    left = np.array(found) != clean
    assert left.any(axis=1).all()
    assert 1.5 * len(found) < left.sum() < 4 * len(found)
    lenient = FlipPolicy.of(subject, example, TokenRules(reachable_only=False))
    untouched = alone(subject, lenient.mended(list(prompts), since=clean))
    assert np.array_equal(untouched, prompts)


def test_what_is_mended_together_is_mended_as_each_alone(merging_tokenizer):
    rules = TokenRules(reachable_only=True)
    subject = Subject(tiny_model(vocab_size=52), merging_tokenizer, rules=rules)
    rng, drafts = np.random.default_rng(1), []
    for text in ["abc dab b ca", "dda bacd ab cadb dda", "abc dab b ca"] * 8:
        since = subject.encode(text)
        written = since.copy()
        where = rng.choice(len(since), 3, replace=False)
        written[where] = rng.choice(subject.vocabulary.allowed, 3)
        drafts.append(Draft(written, since))
    mended = subject.vocabulary.mended

    together = mended(drafts)

    alone = [mended([draft])[0] for draft in drafts]
    assert any(one is None for one in alone)
    for one, other, draft in zip(together, alone, drafts, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)
            kept = one != draft.since
            np.testing.assert_array_equal(one[kept], draft.prompt_ids[kept])
            assert subject.reachable([one]) == [True]


def test_a_prompt_that_no_text_encodes_to_is_checked_as_a_whole(make):
    subject = make(reachable_only=True)
    letters = [*"the cat", " the"]
    clean = np.concatenate([subject.encode(text) for text in letters])
    assert subject.reachable([clean]) == [False]
    example = Example("e", "d", clean, subject.encode(" dog"))
    policy = FlipPolicy.of(subject, example)
    repaired = np.r_[subject.encode("the"), clean[1:]]
    prompts = [p for _, p in possible(subject, example)] + [repaired[: len(clean)]]

    assert policy.permits(prompts) == subject.reachable(prompts)


RULES = [
    {"min_cosine": 0.1},
    {"keep_stop_words": True, "words_only": True},
    {"reachable_only": True},
    {"reachable_only": True, "min_cosine": 0.0, "keep_stop_words": True},
]


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_drawn_flips_are_permitted_and_uniform_at_a_position(make, example, rules):
    subject = make(**rules)
    policy = FlipPolicy.of(subject, example)
    state = State(example.prompt_ids, 0.0, policy.movable, policy)
    every = [f for f, p in possible(subject, example) if policy.permits([p])[0]]
    rng = np.random.default_rng(0)
    allowed = subject.vocabulary.allowed
    free = map(int, np.flatnonzero(state.free))
    lists = {i: policy.writable(i, allowed) for i in free}
    counts = dict.fromkeys(every, 0)

    for _ in range(150):
        drawn = draw_flips(state, lists, rng, 10)
        assert len(set(drawn)) == 10
        for flip in drawn:
            counts[flip] += 1  # a flip that is not permitted is no key

    some = next(f.position for f in every)
    own = [n for flip, n in counts.items() if flip.position == some]
    expected = sum(own) / len(own)
    chi_square = sum((n - expected) ** 2 / expected for n in own)
    assert abs(chi_square - (len(own) - 1)) < 5 * np.sqrt(2 * len(own))
    all_of_them = draw_flips(state, lists, rng, 10**6)
    assert sorted(all_of_them) == sorted(every)


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("name", ["hotflip", "textbook", "random"])
def test_attacks_and_their_control_keep_to_the_rules(make, example, rules, name):
    from harness.api.attacks import AttackContext
    from harness.data.document import ExampleSets
    from harness_plugins.attacks.hotflip import HotFlip
    from harness_plugins.attacks.random import Random

    plugin = Random if name == "random" else HotFlip
    extra = {"candidates_from": "gradient"} if name == "textbook" else {}
    attack = plugin(plugin.Options(flips=4, candidates=12, **extra))
    subject = make(**rules)

    (found,) = attack.run(subject, ExampleSets([example]), AttackContext("cell"))

    policy = FlipPolicy.of(subject, example)
    assert len(found.trace) >= 2
    assert policy.permits([found.prompt_ids]) == [True]
    written = found.prompt_ids[found.prompt_ids != example.prompt_ids]
    assert set(written) <= set(subject.vocabulary.allowed)
    if name == "textbook":  # the rules cost it no candidates while there are enough
        assert found.trace[0]["verified"] == 12


@pytest.mark.parametrize("known", [0, 3])
def test_a_look_s_flips_are_the_permitted_ones_of_highest_gain(make, example, known):
    subject = make(min_cosine=0.1, keep_stop_words=True)
    prompt, reference = example.prompt_ids, example.reference_ids
    state = alone(subject, State.clean(subject, example))
    (gradient,) = subject.gradients([prompt], reference)
    every = {
        flip: float((subject.embedding[flip.token] - subject.embedding[old]) @ slope)
        for flip, written in possible(subject, example)
        if state.policy.permits([written])[0]
        for old, slope in [(prompt[flip.position], gradient[flip.position])]
    }
    ranked = sorted(every, key=every.get, reverse=True)
    look = Look(subject, state.policy, prompt, gradient)

    for count in (4, len(every) + 9):
        flips = look.flips(state, count, None, ranked[:known])
        found = alone(subject, flips)

        assert list(found) == ranked[known:][:count]
        expected = [every[flip] for flip in found]
        assert list(found.values()) == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_where_nothing_is_permitted_the_prompt_stays(make, example):
    from harness.api.attacks import AttackContext
    from harness.data.document import ExampleSets
    from harness_plugins.attacks.hotflip import HotFlip

    subject = make(min_cosine=1.0)
    (found,) = HotFlip().run(subject, ExampleSets([example]), AttackContext("cell"))

    assert found.prompt_ids.tolist() == example.prompt_ids.tolist()
