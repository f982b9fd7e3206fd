import numpy as np
import pytest

from harness.api.attacks import AttackContext
from harness.data.document import Example, ExampleSets
from harness.subject.rules import TokenRules
from harness.subject.subject import Subject
from harness.testing import tiny_examples, tiny_subject
from harness_plugins.attacks.multiflip import MultiFlip
from harness_plugins.attacks.permuted import Permuted
from harness_plugins.attacks.random import Random

pytestmark = pytest.mark.transformers5


def attack(subject, examples, matched=None, plugin=MultiFlip, **options):
    """Run an attack; returns its results by example id."""
    results = plugin(plugin.Options(**options)).run(
        subject, ExampleSets(examples), AttackContext("cell", matched=matched)
    )
    return {found.example_id: found for found in results}


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


def test_with_every_token_in_its_lists_it_finds_the_best_of_all_prompts(
    letter_subject, letter_examples, best_flips
):
    subject, (example,) = letter_subject(), letter_examples(prompt=2)
    (found,) = attack(subject, [example], steps=60, candidates=200, top_k=49).values()
    prompt, loss = best_flips(subject, example, 2)
    assert found.prompt_ids.tolist() == prompt.tolist()
    assert found.trace[-1]["loss"] == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("positions", ["prompt", "prefix", "suffix"])
def test_its_trace_climbs_and_can_be_replayed(
    positions, letter_subject, letter_examples, plain_losses
):
    subject, (example,) = letter_subject(), letter_examples(prompt=6)
    (found,) = attack(
        subject, [example], steps=8, positions=positions, tokens=3
    ).values()
    assert len(found.prompt_ids) == (6 if positions == "prompt" else 9)
    own = {"prompt": slice(0), "prefix": slice(3, None), "suffix": slice(6)}[positions]
    clean = example.prompt_ids if positions != "prompt" else example.prompt_ids[:0]
    assert found.prompt_ids[own].tolist() == clean.tolist()
    written = [i for step in found.trace for i in step["positions"]]
    allowed = {"prompt": range(6), "prefix": range(3), "suffix": range(6, 9)}
    assert written
    assert set(written) <= set(allowed[positions])
    losses = [step["loss"] for step in found.trace]
    assert losses == sorted(losses)
    if positions == "prompt":
        path = replay(example.prompt_ids, found.trace)
        assert path[-1].tolist() == found.prompt_ids.tolist()
        again = plain_losses(subject, path[1:], example.reference_ids)
        np.testing.assert_allclose(again, losses, atol=1e-5)


def test_a_target_becomes_likelier(letter_subject, letter_examples, plain_losses):
    subject, (example,) = letter_subject(), letter_examples(prompt=6)
    (found,) = attack(subject, [example], steps=10, target="bad").values()
    target = subject.encode("bad")
    both = [example.prompt_ids, found.prompt_ids]
    clean, after = plain_losses(subject, both, target)
    assert after < clean - 0.1
    assert found.trace[-1]["target_loss"] == pytest.approx(after, abs=1e-5)


def test_neighbours_and_batches_change_nothing(letter_subject, letter_examples):
    examples = letter_examples(count=5, prompt=6)
    one = attack(letter_subject(batch_size=1), examples, steps=5)
    many = attack(letter_subject(batch_size=64), examples, steps=5)
    single = attack(letter_subject(batch_size=7), examples[3:4], steps=5)
    ids = {k: found.prompt_ids.tolist() for k, found in one.items()}
    assert {k: found.prompt_ids.tolist() for k, found in many.items()} == ids
    for name, found in single.items():
        assert found.prompt_ids.tolist() == ids[name]


@pytest.mark.parametrize("positions", ["prompt", "suffix"])
def test_it_and_its_control_cost_what_the_budget_says(positions):
    subject, examples = tiny_subject(), tiny_examples().test[:1]
    options = {"steps": 6, "candidates": 5, "positions": positions, "tokens": 4}
    multiflip = MultiFlip(MultiFlip.Options(**options))
    budget, (x,) = multiflip.budget(1), examples
    with subject.metered() as spent:
        attack(subject, examples, **options)
    with subject.metered() as control:
        attack(subject, examples, multiflip, plugin=Random)
    inserted = 4 if positions == "suffix" else 0
    n, m = len(x.prompt_ids) + inserted, len(x.reference_ids)
    forward, backward = subject.pass_flops(n, m)
    whole = budget.forward * forward + budget.backward * backward
    assert spent.flops_whole == pytest.approx(whole, rel=0.1)  # near ties cost more
    assert control.flops_whole == pytest.approx(spent.flops_whole, rel=0.1)
    assert spent.sequences_backward <= budget.backward == 6
    assert control.sequences_backward == 0


def test_rules_about_flips_hold_for_it_and_its_control(
    tiny_model, letter_tokenizer, letter_examples
):
    rules = TokenRules(max_changed=0.34)
    model = tiny_model(vocab_size=52)
    subject = Subject(model, letter_tokenizer, rules=rules)
    examples = letter_examples(count=3, prompt=6)
    multiflip = MultiFlip(MultiFlip.Options(steps=6))
    for plugin in (MultiFlip, Random):
        options = {"steps": 6} if plugin is MultiFlip else {}
        found = attack(subject, examples, multiflip, plugin=plugin, **options)
        for example in examples:
            changed = found[example.id].prompt_ids != example.prompt_ids
            assert 0 < changed.sum() <= 2


@pytest.mark.parametrize("target", [None, "add"])
@pytest.mark.parametrize("plugin", [MultiFlip, Random])
def test_it_and_its_control_move_among_texts_alone_if_so_wished(
    plugin, target, tiny_model, merging_tokenizer
):
    subject = Subject(tiny_model(vocab_size=52), merging_tokenizer)
    prompt = subject.encode("abc dab b ca dda bacd ab cadb dda")
    example = Example("e", "d", prompt, subject.encode(" bad"))

    def moves(**more):
        """Return every prompt that an attack of the block moved to."""
        many = MultiFlip(MultiFlip.Options(steps=12, target=target, **more))
        matched = many if plugin is Random else None
        own = {} if matched else many.options.model_dump()
        (found,) = attack(subject, [example], matched, plugin, **own).values()
        return replay(prompt, found.trace)

    assert not all(subject.reachable(moves()))
    found = moves(reachable_only=True)
    assert all(subject.reachable(found))
    assert len(found) > 3


def test_no_prompt_on_the_way_has_more_flips_than_may_be(
    letter_subject, letter_examples
):
    subject, examples = letter_subject(), letter_examples(6, prompt=12)
    limited = {"flips": 3, "steps": 15}
    multiflip = MultiFlip(MultiFlip.Options(**limited))
    for plugin, options in ((MultiFlip, limited), (Random, {})):
        found = attack(subject, examples, multiflip, plugin=plugin, **options)
        ever = []
        for example in examples:
            path = replay(example.prompt_ids, found[example.id].trace)
            changed = [set(np.flatnonzero(p != example.prompt_ids)) for p in path]
            assert max(map(len, changed)) == 3
            assert path[-1].tolist() == found[example.id].prompt_ids.tolist()
            ever.append(len(set().union(*changed)))
        assert max(ever) > 3  # flips were given back for others


def test_without_limits_it_may_rewrite_the_whole_prompt():
    whole = MultiFlip.Options()
    assert MultiFlip(MultiFlip.Options(flips=3)).unbounded(16) == whole
    assert MultiFlip(whole).unbounded(16) is None


def test_a_gradient_turned_around_is_worse_than_a_shuffled_one():
    """So that an attack down its gradient is told from one up it."""
    from scipy.stats import bootstrap

    subject, examples = tiny_subject(), tiny_examples(12).test
    options = {"steps": 12, "flips": 3}
    inverted = subject.with_gradients(lambda p, r, gradients: [-g for g in gradients])
    down = attack(inverted, examples, **options)
    multiflip = MultiFlip(MultiFlip.Options(**options))
    shuffled = attack(subject, examples, multiflip, plugin=Permuted)
    differences = [
        np.subtract(
            *subject.exact_losses(
                [down[x.id].prompt_ids, shuffled[x.id].prompt_ids], x.reference_ids
            )
        )
        for x in examples
    ]
    interval = bootstrap((differences,), np.mean, rng=0).confidence_interval
    assert interval.high < 0


def test_protected_tokens_stay(letter_subject, letter_examples):
    subject, examples = (
        letter_subject(),
        letter_examples(count=2, prompt=6, protected=2),
    )
    for name, found in attack(subject, examples, steps=4).items():
        (example,) = (x for x in examples if x.id == name)
        assert found.prompt_ids[:2].tolist() == example.prompt_ids[:2].tolist()


@pytest.mark.slow
def test_the_gradient_pays(letter_subject, letter_examples):
    """At equal cost it beats its control by more than chance, paired by example."""
    from scipy.stats import bootstrap

    subject, examples = tiny_subject(), tiny_examples(12).test
    options = {"steps": 12}
    multiflip = MultiFlip(MultiFlip.Options(**options))
    found = attack(subject, examples, **options)
    control = attack(subject, examples, multiflip, plugin=Random)
    differences = [
        np.subtract(
            *subject.exact_losses(
                [found[x.id].prompt_ids, control[x.id].prompt_ids], x.reference_ids
            )
        )
        for x in examples
    ]
    interval = bootstrap((differences,), np.mean, rng=0).confidence_interval
    assert interval.low > 0
