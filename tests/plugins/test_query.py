import numpy as np
import pytest
from scipy.stats import bootstrap

from harness.api.attacks import AttackContext
from harness.data.document import ExampleSets
from harness.subject.rules import TokenRules
from harness.subject.subject import Subject
from harness_plugins.attacks.query import Query, QueryOptions
from harness_plugins.attacks.random import Random

pytestmark = pytest.mark.transformers5


@pytest.fixture
def attack(letter_examples):
    """Return a function that runs an attack and gives its results by example id."""

    def run(subject, examples, budget=None, plugin=Query, **options):
        search = letter_examples(10, prompt=6, seed=9)
        sets = ExampleSets(examples, search, search)
        results = plugin(plugin.Options(**options)).run(
            subject, sets, AttackContext("cell", budget)
        )
        return {found.example_id: found for found in results}

    return run


def test_it_beats_random_search_at_equal_cost(
    attack, tiny_model, tiny_tokenizer, letter_examples
):
    subject, examples = Subject(tiny_model(), tiny_tokenizer), letter_examples(32, 12)
    query = Query(QueryOptions(flips=4, queries=241))

    def rises(**how):
        with subject.metered() as spent:
            found = attack(subject, examples, **how)
        pairs = [([found[x.id].prompt_ids, x.prompt_ids], x) for x in examples]
        losses = [subject.exact_losses(p, x.reference_ids) for p, x in pairs]
        return np.subtract(*np.transpose(losses)), spent

    own, spent = rises(**query.options.model_dump())
    control, control_spent = rises(budget=query.budget(len(examples)), plugin=Random)

    interval = bootstrap((own - control,), np.mean, rng=0).confidence_interval
    assert interval.low > 0
    assert spent.sequences_backward == 0
    whole = pytest.approx(control_spent.flops_whole, rel=0.02)
    assert spent.flops_whole == whole


def test_it_flips_distinct_free_positions_to_allowed_tokens(
    attack, letter_subject, letter_examples
):
    subject, examples = letter_subject("opt"), letter_examples(4, prompt=9, protected=2)

    found = attack(subject, examples, flips=4, queries=81)

    for example in examples:
        prompt = found[example.id].prompt_ids
        changed = np.flatnonzero(prompt != example.prompt_ids)
        steps = found[example.id].trace
        assert sorted(step["position"] for step in steps) == changed.tolist()
        assert changed.min() >= 2
        assert len(changed) == 4
        assert np.isin(prompt[changed], subject.vocabulary.allowed).all()
        assert steps[-1]["passes"] == 81


def test_the_rules_about_flips_hold(attack, tiny_model, tiny_tokenizer):
    from harness.testing import tiny_examples

    rules = TokenRules(reachable_only=True, max_changed=0.2)
    subject = Subject(tiny_model(), tiny_tokenizer, rules=rules)
    examples = tiny_examples(3, prompt_tokens=10).test

    found = attack(subject, examples, flips=5, queries=61)

    for example in examples:
        prompt = found[example.id].prompt_ids
        assert subject.reachable([prompt]) == [True]
        assert 1 <= np.sum(prompt != example.prompt_ids) <= 2


def test_neither_batch_size_nor_order_nor_company_changes_a_prompt(
    attack, letter_subject, letter_examples
):
    examples = letter_examples(3, prompt=6)
    options = {"flips": 2, "queries": 61}

    together = attack(letter_subject(batch_size=256), examples, **options)
    some = attack(letter_subject(batch_size=7), examples[:0:-1], **options)

    for name, one in some.items():
        assert one.prompt_ids.tolist() == together[name].prompt_ids.tolist()


def test_where_there_is_little_to_try_it_stops(attack, letter_subject, letter_examples):
    (example,) = letter_examples(prompt=1)

    (found,) = attack(letter_subject(), [example], flips=3, queries=1000).values()

    assert len(found.trace) == 1
    assert 20 < found.trace[0]["verified"] <= 48


def test_what_diagnostics_ask_for():
    query = Query(QueryOptions(flips=3, queries=100))

    assert query.unbounded(16) == QueryOptions(flips=16, queries=100)
    assert query.longer() == QueryOptions(flips=3, queries=200)
