"""The sweep finds the tokens that harm most, whether or not a gradient shows them."""

import numpy as np
import pytest
import torch

from harness.api import AttackContext
from harness.data import Example, ExampleSets
from harness.subject import Subject, TokenRules
from harness.testing import tiny_model, tiny_tokenizer
from harness_plugins.attacks.hotflip import HotFlip
from harness_plugins.attacks.random import Random
from harness_plugins.attacks.sweep import Sweep
from tests.plugins.letters import (
    letter_sets,
    letter_subject,
    make,
    plain_losses,
    run,
)

LETTERS = np.arange(1, 50)


def written(prompt, position, tokens):
    rows = np.tile(prompt, (len(tokens), 1))
    rows[:, position] = tokens
    return rows


def ranked(subject, search, count):
    """Rank all letters by brute force, at the positions that the cell draws."""
    means = np.zeros(49)
    for number in range(count):
        example = search[number % len(search)]
        rng = AttackContext("cell").rng("sweep", number)
        position = rng.choice(np.flatnonzero(example.free))
        prompts = written(example.prompt_ids, position, LETTERS)
        means += plain_losses(subject, prompts, example.reference_ids) / count
    return LETTERS[np.argsort(-means)]


@pytest.mark.parametrize("seen", [6, 9])  # as many search examples as there are; more
def test_its_choice_is_that_of_brute_force(seen):
    """Where all flips to the best tokens are verified, greedily, position by position.

    The first flip goes by the ranking on half of the search examples, the second by
    that on all.
    """
    subject, sets = letter_subject(), letter_sets(6, protected=1)
    attack = make(Sweep, flips=2, search_examples=seen, tokens=5, candidates=25)

    found = run(attack, subject, sets)

    for example in sets.test:
        prompt, free = example.prompt_ids.copy(), np.flatnonzero(example.free)
        for step in (1, 2):
            tokens = ranked(subject, sets.search, -(-step * seen // 2))[:5]
            prompts = np.vstack([written(prompt, i, tokens) for i in free])
            losses = plain_losses(subject, [prompt, *prompts], example.reference_ids)
            best = [prompt, *prompts][int(losses.argmax())]
            free = free[best[free] == prompt[free]]
            prompt = best
        assert found[example.id].prompt_ids.tolist() == prompt.tolist()


def test_it_ranks_before_it_sees_what_it_attacks():
    """Its passes over all tokens are of search examples alone, however many it has."""
    subject, sets = letter_subject(), letter_sets(6)
    attack = make(Sweep, flips=1, search_examples=3, tokens=2, candidates=4)
    (one, *_), search = sets.test, sets.search
    for test in ([one], [one, *search[4:]]):
        found = run(attack, subject, ExampleSets(test, search[:4]))
        (step,) = found[one.id].trace
        assert step["token"] in ranked(subject, search[:4], 3)[:2]
        assert (step["passes"], step["verified"]) == (5, 4)


def test_a_further_search_goes_on_where_the_first_left_off():
    subject, sets = letter_subject(), letter_sets(6)
    options = {"flips": 1, "search_examples": 6, "tokens": 4}
    halves = make(Sweep, **options, candidates=12, searches=2)
    whole = make(Sweep, **options | {"search_examples": 12}, candidates=24)
    best = run(whole, subject, sets)
    for example, found in run(halves, subject, sets).items():
        tried = (
            ranked(subject, sets.search, 6)[:4],
            ranked(subject, sets.search, 12)[:4],
        )
        if set(tried[0]) == set(tried[1]):  # the same flips in all
            assert found.prompt_ids.tolist() == best[example].prompt_ids.tolist()


def test_its_control_draws_tokens_evenly_and_gets_what_the_ranking_cost():
    subject, sets = letter_subject(), letter_sets(6)
    attack = make(Sweep, flips=2, search_examples=6, candidates=20)
    budget = attack.budget(len(sets.test))
    assert budget.sweeps == 6 / 3

    found = run(Random(), subject, sets, attack)

    for one in found.values():
        assert one.trace[-1]["passes"] == 1 + 2 * 20 + 2 * 49


def test_what_no_text_gives_is_no_candidate_and_ranks_low():
    rules = TokenRules(reachable_only=True)
    subject = Subject(tiny_model(), tiny_tokenizer(), rules=rules)
    ids = [subject.encode("the cat sat on the mat; the dog ate")[:12] for _ in range(3)]
    examples = [Example(f"{i}", f"{i}", x[:8], x[8:]) for i, x in enumerate(ids)]
    sets = ExampleSets(examples[:1], examples[1:])

    (one,) = run(make(Sweep, flips=2, candidates=40), subject, sets).values()

    assert one.trace
    assert subject.reachable([one.prompt_ids]) == [True]


# --- what no gradient shows ---------------------------------------------------------


def gate(model, token):
    """Make a feed-forward unit fire at one token, and nowhere near any other.

    The network of the first layer reads embeddings alone, each token's as it is.
    """
    layer = model.gpt_neox.layers[0]
    assert model.config.use_parallel_residual
    with torch.no_grad():
        read = layer.post_attention_layernorm(model.get_input_embeddings().weight)
        direction = read[token] - read.mean(0)
        along = read @ direction
        others = along[torch.arange(len(along)) != token].max()
        scale = 40 / (along[token] - others)  # GELU is 0 at -20, to the last digit
        layer.mlp.dense_h_to_4h.weight[0] = scale * direction
        layer.mlp.dense_h_to_4h.bias[0] = -scale * (along[token] + others) / 2


def arm(model, token, examples):
    """Train what the unit writes, so that the loss rises wherever the token stands."""
    weight = model.gpt_neox.layers[0].mlp.dense_4h_to_h.weight
    rows = [[*x.prompt_ids, *x.reference_ids] for x in examples]
    ids = torch.tensor(np.array(rows)).repeat_interleave(8, 0)
    ids[torch.arange(len(ids)), torch.arange(len(ids)) % 8] = token
    weight.data[:, 0] = 0
    for _ in range(60):
        logits = model(ids).logits[:, 7:-1].transpose(1, 2)
        loss = torch.nn.functional.cross_entropy(logits, ids[:, 8:])
        (slope,) = torch.autograd.grad(loss, weight)
        weight.data[:, 0] += slope[:, 0] / slope[:, 0].norm() / 5


@pytest.fixture(scope="module")
def weak():
    """Return a subject with a gated weakness, its token, and examples.

    The references are what the model itself would write, so that all else does harm.
    """
    model, rng = tiny_model(), np.random.default_rng(0)
    model.get_input_embeddings().weight.data *= 0.3  # so that networks say more
    allowed = Subject(tiny_model(), tiny_tokenizer()).vocabulary.allowed
    token, others = int(allowed[-1]), allowed[:-1]
    gate(model, token)
    model.generation_config.eos_token_id = None
    prompts = torch.tensor(rng.choice(others, (14, 8)))
    greedy = {"do_sample": False, "max_new_tokens": 6, "pad_token_id": 0}
    ids = model.generate(prompts, **greedy).numpy()
    examples = [Example(f"{i}", f"{i}", x[:8], x[8:]) for i, x in enumerate(ids)]
    arm(model, token, examples)
    sets = ExampleSets(examples[:6], examples[6:])
    return Subject(model, tiny_tokenizer()), token, sets


def test_no_gradient_at_a_clean_prompt_shows_the_gate(weak):
    """Without the unit the gradient is the same, to the last digit."""
    subject, token, sets = weak
    closed = tiny_model()
    closed.load_state_dict(subject.huggingface()[0].state_dict())
    with torch.no_grad():
        closed.gpt_neox.layers[0].mlp.dense_4h_to_h.weight[:, 0] = 0
    without = Subject(closed, tiny_tokenizer())
    for example in sets.test:
        pairs = [example.prompt_ids], example.reference_ids
        assert torch.equal(subject.gradients(*pairs)[0], without.gradients(*pairs)[0])
        hurt = written(example.prompt_ids, 3, [token])
        (harm,) = plain_losses(subject, hurt, example.reference_ids)
        assert harm > plain_losses(without, hurt, example.reference_ids)[0] + 0.1


def test_it_finds_a_gated_weakness_that_hotflip_misses(weak):
    subject, token, sets = weak

    def found(attack):
        return sum(token in x.prompt_ids for x in run(attack, subject, sets).values())

    assert found(make(Sweep, flips=2)) >= 5  # of 6
    assert found(make(HotFlip, flips=2)) <= 2  # of 153 tokens it tries many
