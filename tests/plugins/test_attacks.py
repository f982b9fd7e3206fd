"""What holds of every attack that searches, whatever it is, and of its controls."""

import dataclasses
import functools

import numpy as np
import pytest
from scipy.stats import bootstrap

from harness.api import Scene
from harness.data import Example, ExampleSets
from harness.subject import Subject, TokenRules
from harness.testing import tiny_examples, tiny_model, tiny_subject, tiny_tokenizer
from harness_plugins.attacks.adaptive import Adaptive
from harness_plugins.attacks.benign import Benign
from harness_plugins.attacks.gcg import GCG
from harness_plugins.attacks.hotflip import HotFlip
from harness_plugins.attacks.multiflip import MultiFlip
from harness_plugins.attacks.permuted import Permuted
from harness_plugins.attacks.query import Query
from harness_plugins.attacks.random import Random
from harness_plugins.attacks.sweep import Sweep
from harness_plugins.attacks.uat import UAT
from tests.plugins.letters import (
    letter_examples,
    letter_sets,
    letter_subject,
    letter_tokenizer,
    make,
    plain_losses,
    prompts_of,
    rises,
    run,
)

TEXTBOOK = {"candidates_from": "gradient"}
TRIGGER = {"trigger_tokens": 3, "candidates": 6, "restarts": 2, "sweeps": 2}
GIVEN = {"search_prompts": 6, "validation_prompts": 5, "batch_prompts": 6}

# --- what is written ----------------------------------------------------------------

FLIPS = {
    "hotflip": make(HotFlip, flips=4, candidates=12),
    "textbook": make(HotFlip, flips=4, candidates=12, **TEXTBOOK),
    "multiflip": make(MultiFlip, flips=4, steps=8),
    "gcg": make(GCG, flips=4, steps=8, candidates=12),
    "query": make(Query, flips=4, queries=81),
    "sweep": make(Sweep, flips=4, candidates=24),
    "random": make(Random, flips=4, candidates=12),
}
BLOCK = {"tokens": 3, "steps": 5}
INSERTED = {
    "prefix of multiflip": make(MultiFlip, positions="prefix", **BLOCK),
    "suffix of multiflip": make(MultiFlip, positions="suffix", **BLOCK),
    "prefix of gcg": make(GCG, positions="prefix", candidates=12, **BLOCK),
    "suffix of gcg": make(GCG, positions="suffix", candidates=12, **BLOCK),
    "trigger of uat": make(UAT, **{**TRIGGER, "restarts": 1}),
}


def sets_of_t5(subject):
    """Return examples whose prompts have an end that no attack may touch."""
    rng = np.random.default_rng(0)
    ids = rng.choice(subject.vocabulary.allowed, (9, 13))
    examples = [
        Example(f"{i}", f"{i}", np.r_[row[:9], 0], row[9:], protected_end=1)
        for i, row in enumerate(ids)
    ]
    return ExampleSets(examples[:3], examples[3:6], examples[6:])


@pytest.fixture(scope="module", params=["opt", "t5"])
def world(request):
    """Return a subject, and examples whose prompts begin or end with protected ones."""
    if request.param == "opt":
        return letter_subject("opt"), letter_sets(9, protected=2)
    subject = tiny_subject("t5")
    return subject, sets_of_t5(subject)


def losses_of(trace):
    return [step["loss"] for step in trace]


@pytest.mark.transformers5
@pytest.mark.parametrize("name", FLIPS)
def test_flips_are_of_few_free_positions_to_allowed_tokens(world, name):
    subject, sets = world

    found = run(FLIPS[name], subject, sets)

    for example in sets.test:
        ids, trace = found[example.id].prompt_ids, found[example.id].trace
        changed = ids != example.prompt_ids
        assert 3 <= changed.sum() <= 4
        kept = example.protected + example.protected_end
        assert changed.sum() == changed[example.protected :][: len(ids) - kept].sum()
        assert np.isin(ids[changed], subject.vocabulary.allowed).all()
        if name in ("textbook", "query", "sweep", "random"):  # a step for each flip
            written = sorted(step["position"] for step in trace)
            assert written == np.flatnonzero(changed).tolist()
        loss, clean = plain_losses(
            subject, [ids, example.prompt_ids], example.reference_ids
        )
        assert loss > clean
        assert loss == pytest.approx(max(losses_of(trace)), abs=1e-4)


@pytest.mark.transformers5
@pytest.mark.parametrize("control", [None, Random, Benign])
@pytest.mark.parametrize("name", INSERTED)
def test_what_is_inserted_stands_beside_a_prompt_that_stays(world, name, control):
    subject, sets = world
    attack = INSERTED[name]
    if control is Benign and control().unfit(attack):
        return
    matched = attack if control else None

    found = run(control() if control else attack, subject, sets, matched)

    for example in sets.test:
        before, after = example.protected, len(example.prompt_ids)
        first = after - example.protected_end if "suffix" in name else before
        place = np.arange(first, first + 3)
        ids, trace = found[example.id].prompt_ids, found[example.id].trace
        assert np.delete(ids, place).tolist() == example.prompt_ids.tolist()
        assert np.isin(ids[place], subject.vocabulary.allowed).all()
        if attack.name == "uat":
            continue  # its positions are the trigger's, its losses of other examples
        written = [step.get("positions", step.get("position")) for step in trace]
        assert np.isin(np.hstack(written), place).all()
        loss = plain_losses(subject, [ids], example.reference_ids)[0]
        assert loss == pytest.approx(max(losses_of(trace)), abs=1e-4)
    if attack.name == "uat":
        triggers = {tuple(found[x.id].prompt_ids[place]) for x in sets.test}
        assert len(triggers) == 1


@pytest.mark.parametrize("name", FLIPS)
def test_a_protected_start_and_end_leave_the_middle(name):
    subject, (example,) = letter_subject(), letter_examples(prompt=6)
    closed = dataclasses.replace(example, protected=2, protected_end=2)

    sets = ExampleSets([closed], letter_examples(2, prompt=6, seed=1))
    found = run(FLIPS[name], subject, sets)[example.id].prompt_ids

    assert set(np.flatnonzero(found != example.prompt_ids)) == {2, 3}


@pytest.mark.parametrize("control", [None, Random, Permuted, Benign])
@pytest.mark.parametrize("name", [*FLIPS, *INSERTED])
def test_by_default_suites_let_nothing_be_chosen_that_is_no_text(name, control):
    subject = Subject(tiny_model(), tiny_tokenizer(), rules=TokenRules())
    sets = tiny_examples(3, prompt_tokens=10)
    attack = (FLIPS | INSERTED)[name]
    if control and control().unfit(attack):
        return

    how = (control(), attack) if control else (attack, None)
    found = run(how[0], subject, sets, how[1])

    changed = 0
    for example in sets.test:
        ids = found[example.id].prompt_ids
        text = subject.decode(ids)
        assert subject.encode(text).tolist() == ids.tolist()
        changed += ids.tolist() != example.prompt_ids.tolist()
    assert changed  # something is found among texts


@pytest.mark.transformers5
@pytest.mark.parametrize("name", FLIPS)
def test_rules_about_flips_hold(name):
    rules = TokenRules(reachable_only=True, max_changed=0.2)
    subject = Subject(tiny_model(), tiny_tokenizer(), rules=rules)
    sets = tiny_examples(3, prompt_tokens=10)

    found = run(FLIPS[name], subject, sets)

    for example in sets.test:
        prompt = found[example.id].prompt_ids
        assert subject.reachable([prompt]) == [True]
        assert 1 <= np.sum(prompt != example.prompt_ids) <= 2


HOTFLIP = make(HotFlip, flips=2, candidates=9)
SAME = {
    "hotflip": (HOTFLIP, None),
    "textbook": (make(HotFlip, flips=2, candidates=9, **TEXTBOOK), None),
    "permuted": (Permuted(), HOTFLIP),
    "multiflip": (make(MultiFlip, steps=5), None),
    "gcg": (make(GCG, steps=3, candidates=9, top_k=10), None),
    "query": (make(Query, flips=2, queries=61), None),
    "sweep": (make(Sweep, flips=2, candidates=24), None),
    "random": (make(Random, candidates=12), None),
    "uat": (make(UAT, **{**TRIGGER, "sweeps": 1}), None),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float32") for name in SAME),
        ("hotflip", "bfloat16"),
        ("textbook", "bfloat16"),
    ],
)
def test_neither_batch_size_nor_order_nor_company_changes_a_prompt(name, dtype):
    (attack, matched), sets = SAME[name], letter_sets(6)
    fewer = dataclasses.replace(sets, test=sets.test[:0:-1])
    together, singly, some = (
        prompts_of(run(attack, letter_subject(dtype=dtype, batch_size=n), x, matched))
        for n, x in ((256, sets), (2, sets), (7, fewer))
    )

    assert together == singly
    assert some.items() <= together.items()


@pytest.mark.transformers5
def test_an_encoder_decoder_s_batch_size_changes_no_prompt():
    subject = tiny_subject("t5")
    sets = sets_of_t5(subject)
    many = prompts_of(run(HOTFLIP, subject, sets))
    subject.batch_size = 1
    assert prompts_of(run(HOTFLIP, subject, sets)) == many


@pytest.mark.parametrize("attack", [HOTFLIP, Random()])
def test_where_no_gradient_shows_a_way_up_the_prompt_stays(attack):
    model = tiny_model(vocab_size=52)
    model.get_output_embeddings().weight.data.zero_()  # every token is equally likely
    examples = letter_examples(prompt=8)

    found = run(attack, Subject(model, letter_tokenizer()), examples)

    assert prompts_of(found) == {x.id: x.prompt_ids.tolist() for x in examples}


# --- what it costs ------------------------------------------------------------------

SWEEPS = {**TRIGGER, "sweeps": 3}
COSTS = {
    # attack, least share of its budget, near ties scored again, whether it takes all of
    # its gradients, how near its controls come
    "hotflip": (HotFlip(), 0.98, 10, False, 0.04),
    "hotflip, few": (make(HotFlip, candidates=3), 0.98, 10, False, 0.04),
    "textbook": (make(HotFlip, **TEXTBOOK), 0.98, 10, True, 0.04),
    "beam": (make(HotFlip, beam_width=3, **TEXTBOOK), 0.98, 10, True, 0.04),
    "gcg": (make(GCG, steps=5, candidates=30), 1.0, 10, True, 0.02),
    "multiflip": (make(MultiFlip, steps=6, candidates=5), 0.9, 5, False, 0.1),
    "query": (make(Query, flips=4, queries=241), 1.0, 10, False, 0.02),
    "sweep": (make(Sweep, flips=3, tokens=4, candidates=30), 0.95, 10, False, 0.05),
    "random": (make(Random, flips=3, candidates=10), 1.0, 5, False, 0.02),
    "uat": (make(UAT, **SWEEPS, **GIVEN), 0.8, 20, False, 0.1),
    "uat, beam": (make(UAT, **SWEEPS, **GIVEN, beam_width=3), 0.8, 20, False, 0.1),
}


@functools.cache
def spent(name, control=None):
    """Return what an attack, or its control, spends on three examples."""
    attack = COSTS[name][0]
    subject, sets = letter_subject(), letter_sets(4 if attack.name == "uat" else 12)
    with subject.metered() as meter:
        if control is None:
            run(attack, subject, sets)
        else:
            run(control(), subject, sets, matched=attack)
    return meter.cost()


@pytest.mark.parametrize("name", COSTS)
def test_the_budget_is_what_is_spent(name):
    attack, least, ties, all_gradients, _ = COSTS[name]
    budget, found = attack.budget(3), spent(name)
    n = 4 + 3 if attack.name == "uat" else 12
    forward, backward = letter_subject().pass_flops(n, 3)
    rows = letter_subject().vocabulary.rows
    whole = (budget.forward + budget.sweeps * rows) * forward
    whole += budget.backward * backward

    assert least * whole <= found.flops_whole / 3 <= whole + ties * forward
    assert found.sequences_backward <= 3 * budget.backward
    if all_gradients:
        assert found.sequences_backward == 3 * budget.backward > 0


@pytest.mark.parametrize("control", [Random, Permuted])
@pytest.mark.parametrize("name", COSTS)
def test_a_control_costs_what_its_attack_costs(name, control):
    attack, *_, all_gradients, error = COSTS[name]
    if control().unfit(attack):
        assert control is Permuted
        assert name in ("query", "sweep", "random")
        return
    own, controls = spent(name), spent(name, control)

    # But for near ties that are scored again, and tokens that were tried before.
    assert controls.flops_whole == pytest.approx(own.flops_whole, rel=error)
    if control is Random:
        assert controls.sequences_backward == 0
    elif all_gradients:
        assert controls.sequences_backward == own.sequences_backward > 0


# --- how strong it is ---------------------------------------------------------------

STRONG = {
    "hotflip": make(HotFlip, flips=2, candidates=24),
    "multiflip": make(MultiFlip, steps=12),
    "gcg": make(GCG, steps=8, candidates=24, top_k=12),
    "query": make(Query, flips=4, queries=241),
}


def compared(one, other):
    """Return the interval of a mean difference of dL, paired by example."""
    return bootstrap((one - other,), np.mean, rng=0).confidence_interval


@functools.cache
def found_by(name, control=None):
    """Return dL of each example, by an attack or its control."""
    subject, examples = tiny_subject(), letter_examples(24, 12)
    attack = STRONG[name]
    how = (control(), attack) if control else (attack, None)
    return rises(subject, examples, run(how[0], subject, examples, how[1]))


@pytest.mark.parametrize(
    ("name", "control"), [*((name, Random) for name in STRONG), ("hotflip", Permuted)]
)
def test_it_beats_its_controls(name, control):
    assert compared(found_by(name), found_by(name, control)).low > 0


@pytest.mark.parametrize(
    ("name", "control"), [("hotflip", Random), ("multiflip", Permuted)]
)
def test_a_gradient_turned_around_is_worse_than_none(name, control):
    """So that an attack down its gradient is told from one up it."""
    subject, examples = tiny_subject(), letter_examples(24, 12)
    inverted = subject.with_gradients(lambda p, r, gradients: [-g for g in gradients])

    down = rises(subject, examples, run(STRONG[name], inverted, examples))

    assert compared(down, found_by(name, control)).high < 0


# --- what diagnostics ask for -------------------------------------------------------

SUFFIX = {"positions": "suffix", "tokens": 4}


@pytest.mark.parametrize(
    ("attack", "unbounded", "doubled"),
    [
        (
            make(HotFlip, flips=3),
            {"flips": 16, "candidates": 44},
            {"flips": 3, "candidates": 132},
        ),
        (
            make(HotFlip, **TEXTBOOK),
            {"flips": 16, **TEXTBOOK},
            {"searches": 2, **TEXTBOOK},
        ),
        (make(Query, flips=3), {"flips": 16}, {"flips": 3, "searches": 2}),
        (
            make(Sweep, flips=3),
            {"flips": 16, "candidates": 96},
            {"flips": 3, "searches": 2},
        ),
        (
            make(Sweep, candidates=9),
            {"flips": 16, "candidates": 9},
            {"candidates": 9, "searches": 2},
        ),
        (GCG(), None, {"steps": 200}),
        (
            make(GCG, steps=7, **SUFFIX),
            {"steps": 7, "tokens": 4},
            {"steps": 14, **SUFFIX},
        ),
        (MultiFlip(), None, {"steps": 128}),
        (make(MultiFlip, flips=3), {}, {"flips": 3, "steps": 128}),
        (UAT(), None, {"restarts": 4}),
        (Random(), None, {"searches": 2}),
    ],
)
def test_what_it_is_without_limits_and_with_twice_the_budget(
    attack, unbounded, doubled
):
    for found, options in (
        (attack.unbounded(16), unbounded),
        (attack.doubled(), doubled),
    ):
        assert found == (None if options is None else attack.Options(**options))


@pytest.mark.parametrize("steered", [UAT, HotFlip])
def test_what_is_steered_is_as_universal_as_by_itself(steered):
    attacks = {"steered": make(steered)}
    scene = Scene("a", 1, ("a",), {}, (1,), attacks, ("steered",))
    adaptive = make(Adaptive, of="steered").placed(scene)
    assert adaptive.universal is steered.universal
