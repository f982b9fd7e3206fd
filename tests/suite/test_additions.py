"""Controls that a suite does not state, and the cells of its full diagnostics."""
# ruff: noqa: E501 - in the table of wrong suites, a message is a line

from pathlib import Path

import pytest

from harness.base.errors import SuiteError
from harness.suite import dump_suite, load_experiment, make_plan

BASE = """
plugins: [toys.py, {example}]
models: {{toy: {{adapter: toy, path: weights}}}}
arms: {arms}
seeds: [1]
corpora:
  search: {{builtin: python-topics, slice: ":50%"}}
  held: {{builtin: python-topics, slice: "50%:60%"}}
  test: {{builtin: python-topics, slice: "60%:"}}
examples:
  test: {{corpus: test, count: 3}}
  search: {{corpus: search, count: 3}}
  validation: {{corpus: held, count: 3}}
"""


@pytest.fixture
def load_text(toy_suite):
    """Return a function that loads a suite of this text, beside the toy suite."""

    def loaded(text):
        Path("s.yaml").write_text(text, encoding="utf-8")
        return load_experiment(Path("s.yaml"))

    return loaded


@pytest.fixture
def load(load_text, example_plugin):
    """Return a function that loads a suite with these further lines."""

    def loaded(lines, arms="{baseline: {}, other: {}}", plugin=example_plugin):
        base = BASE.format(example=plugin, arms=arms)
        return load_text(f"{base}{lines}\n")

    return loaded


def entries(experiment):
    """Return plugin and matched label of each entry, by label."""
    assert list(experiment.attacks) == list(experiment.suite.attacks)
    return {
        label: (experiment.attacks[label].name, section.match)
        for label, section in experiment.suite.attacks.items()
    }


def test_attacks_get_the_controls_that_they_ask_for_right_after_them(load):
    found = entries(load("attacks: {hotflip: {}, mine: {attack: uat}}"))
    assert list(found.items()) == [
        ("hotflip", ("hotflip", None)),
        ("hotflip-random", ("random", "hotflip")),
        ("hotflip-permuted", ("permuted", "hotflip")),
        ("mine", ("uat", None)),
        ("mine-random", ("random", "mine")),
        ("mine-permuted", ("permuted", "mine")),
        ("mine-benign", ("benign", "mine")),
    ]


def test_a_stated_control_gets_no_second_one_whatever_it_is_called(load):
    found = entries(
        load("attacks: {hotflip: {}, by-chance: {attack: random, match: hotflip}}")
    )
    assert list(found) == ["hotflip", "hotflip-permuted", "by-chance"]


@pytest.mark.parametrize(
    ("lines", "labels"),
    [
        ("attacks: {hotflip: {controls: none}}", ["hotflip"]),
        ("attacks: {hotflip: {controls: []}}", ["hotflip"]),
        (
            "attacks: {hotflip: {}, toy_flip: {}}\ncontrols: none",
            ["hotflip", "toy_flip"],
        ),
        (
            "attacks: {hotflip: {controls: [permuted]}}\ncontrols: none",
            ["hotflip", "hotflip-permuted"],
        ),
        (
            "attacks: {hotflip: {controls: auto}, uat: {}}\ncontrols: none",
            ["hotflip", "hotflip-random", "hotflip-permuted", "uat"],
        ),
        ("attacks: {toy_flip: {controls: [random]}}", ["toy_flip", "toy_flip-random"]),
        ("attacks: {rotate: {}}", ["rotate"]),  # it spends nothing
        ("attacks: {random: {}, none: {}}", ["random", "none"]),
    ],
)
def test_controls_can_be_chosen_and_left_out(load, lines, labels):
    assert list(load(lines).attacks) == labels


@pytest.mark.parametrize(
    "lines",
    [
        "attacks: {hotflip: {}, uat: {controls: [benign]}}",
        "attacks: {hotflip: {controls: []}}",
        "attacks: {hotflip: {}}\ncontrols: none",
        "attacks: {hotflip: {}, uat: {}}\ndiagnostics: full",
        "attacks: {hotflip: {}, adaptive: {of: hotflip}, transfer: {of: [hotflip]}}",
    ],
)
def test_a_resolved_suite_is_expanded_no_further(load, lines):
    first = load(lines)
    Path("r.yaml").write_text(dump_suite(first.suite), encoding="utf-8")
    second = load_experiment(Path("r.yaml"))
    assert entries(second) == entries(first)
    assert second.suite == first.suite


def test_full_diagnostics_replay_what_was_found(load):
    full = load("attacks: {toy_flip: {}}\ndiagnostics: full")
    assert list(full.attacks) == ["toy_flip", "transfer", "worst_case"]
    lone = load("attacks: {toy_flip: {}}\ndiagnostics: full", arms="{baseline: {}}")
    assert list(lone.attacks) == ["toy_flip", "worst_case"]


ROLES = '''
from harness import hookimpl
from harness.api.attacks import Attack, Budget
from harness.api.plugin import Options


class Widening(Attack):
    """Has limits that can be lifted."""

    name = "widening"
    controls = ()

    class Options(Options):
        flips: int = 2
        """How many."""
        steps: int = 3
        """How often."""

    def run(self, subject, examples, context):
        raise NotImplementedError

    def budget(self, examples):
        return Budget(1, 1)

    def unbounded(self, prompt_tokens):
        return self.options.model_copy(update={"flips": prompt_tokens})


@hookimpl
def register_attacks():
    return [Widening]
'''


def test_full_diagnostics_lift_the_limits_of_an_attack(load):
    Path("widening.py").write_text(ROLES, encoding="utf-8")
    found = load(
        "attacks: {w: {attack: widening, steps: 5}}\ndiagnostics: full",
        plugin="widening.py",
    )
    options = {k: a.options.model_dump() for k, a in found.attacks.items()}
    roles = {k: section.role for k, section in found.suite.attacks.items()}
    assert options["w-unbounded"] == {"flips": 64, "steps": 5}
    assert roles["w-unbounded"] == "unbounded"
    assert roles["w"] is None
    assert list(found.attacks) == [
        "w",
        "w-unbounded",
        "transfer",
        "worst_case",
    ]


def test_an_attack_without_limits_is_held_against_random_search_without_them(
    load, load_text
):
    found = load("attacks: {hotflip: {}}\ndiagnostics: full")
    control = found.suite.attacks["hotflip-unbounded-random"]
    assert (control.attack, control.match) == ("random", "hotflip-unbounded")
    assert control.role is None
    assert "hotflip-unbounded-permuted" not in found.suite.attacks
    assert [x for x in found.suite.attacks if found.suite.is_free(x)] == [
        "hotflip-unbounded",
        "hotflip-unbounded-random",
    ]
    again = load_text(dump_suite(found.suite))
    assert list(again.suite.attacks) == list(found.suite.attacks)


# --- beside texts, all token sequences ------------------------------------------------


def test_attacks_run_over_token_sequences_too_where_a_suite_asks_for_it(load):
    attacks = "attacks: {hotflip: {flips: 2}, uat: {}, transfer: {}}"
    found = load(f"{attacks}\nverdicts: {{token_level: true}}")
    sections = found.suite.attacks
    beside = {k for k, section in sections.items() if section.role == "token-level"}
    assert beside == {"hotflip-tokens", "uat-tokens"}  # of what searches
    own, other = (found.attacks[x].options for x in ("hotflip", "hotflip-tokens"))
    assert own == other
    assert not [x for x in sections if sections[x].match in beside]
    for label, section in sections.items():
        rules = found.rules_of(label)
        assert rules.reachable_only is (section.role != "token-level")
        assert rules.model_copy(update={"reachable_only": True}) == found.suite.tokens

    cells = {cell.attack: cell.identity for cell in make_plan(found).cells}
    text, tokens = cells["hotflip"], cells["hotflip-tokens"]
    assert text["tokens"] == {"reachable_only": True}
    same = {k: v for k, v in text.items() if k != "examined"}  # decides nothing
    assert tokens == same | {"tokens": {"reachable_only": False}}
    assert tokens["share"] == 2


@pytest.mark.parametrize(
    "more", ["", "verdicts: {token_level: true}\ntokens: {reachable_only: false}"]
)
def test_nothing_stands_beside_texts_unasked_or_where_there_are_none(load, more):
    found = load(f"attacks: {{hotflip: {{}}}}\n{more}")
    assert not [x for x in found.suite.attacks.values() if x.role]


# --- derived arms -------------------------------------------------------------------

FULL = """
extends: base.yaml
diagnostics: full
attacks: {flip: null, control: null, hotflip: {flips: 2}}
"""


def derived(experiment):
    assert list(experiment.arms) == list(experiment.suite.arms)
    return {
        label: (section.constraint, section.derive_from, section.match_loss_of)
        for label, section in experiment.suite.arms.items()
        if section.derive_from
    }


def test_full_diagnostics_add_a_match_of_each_treated_arm(load_text):
    experiment = load_text(FULL)
    matched = {x: made for x, made in derived(experiment).items() if "planted" not in x}
    assert matched == {"monotone-matched": ("noise", "baseline", "monotone")}
    assert len(experiment.attacks) > 2  # controls, replays and other cells
    for cell in make_plan(experiment).cells:
        if cell.variant.arm in derived(experiment):
            assert cell.attack == "hotflip"


def test_matches_are_made_from_the_reference_arm_in_the_ways_that_are_asked(load_text):
    arms = "arms: {other: {start: abs, constraint: toy_softplus, against: monotone}}"
    experiment = load_text(f"{FULL}{arms}\nverdicts: {{earlier: true}}")
    made = {x: y for x, y in derived(experiment).items() if "planted" not in x}
    assert made == {
        "monotone-matched": ("noise", "baseline", "monotone"),
        "monotone-earlier": ("earlier", "baseline", "monotone"),
        "other-matched": ("noise", "monotone", "other"),
        "other-earlier": ("earlier", "monotone", "other"),
    }


def test_full_diagnostics_train_the_baseline_once_more(load_text):
    replica = load_text(FULL).suite.arms["replica"]
    assert (replica.replicate, replica.attacks) == ("baseline", ("hotflip",))
    stated = load_text(FULL + "arms: {again: {replicate: baseline}}")
    untrained = load_text(FULL + "recovery: null\nmetrics: null")
    assert not {"replica"} & (stated.suite.arms.keys() | untrained.suite.arms.keys())


def test_full_diagnostics_plant_weaknesses_of_every_kind_and_strength(load_text):
    experiment = load_text(FULL)
    planted = {
        (
            experiment.suite.arms[label].derive_from,
            arm.options.kind,
            arm.options.strength,
        ): experiment.suite.arms[label]
        for label, arm in experiment.arms.items()
        if arm.name == "planted"
    }
    kinds = {
        "baseline": ("token", "ffn"),
        "monotone": ("token", "ffn", "pair", "hidden"),
    }
    assert planted.keys() == {
        (arm, kind, strength)
        for arm in kinds
        for kind in kinds[arm]
        for strength in (0.3, 1.0, 3.0)
    }
    for (arm, kind, strength), section in planted.items():
        strongest = None if strength == 3 else f"{arm}-planted-{kind}-3"
        assert (section.seeds, section.weaker_than) == ((1,), strongest)


def test_a_plant_reads_what_attacks_did_to_its_arm(load_text):
    plan = make_plan(
        load_text(FULL.replace("full", "full\nexamples: {test: {count: 50}}"))
    )
    cells = {(c.variant.arm, c.variant.seed, c.attack): c for c in plan.cells}
    (strong,) = [v for v in plan.variants if v.arm == "monotone-planted-token-3"]
    (weak,) = [v for v in plan.variants if v.arm == "monotone-planted-token-1"]
    (trained,) = [v for v in plan.variants if (v.arm, v.seed) == ("monotone", 1)]
    for one, sources in ((strong, [trained]), (weak, [trained, strong])):
        own = cells["monotone", 1, "hotflip"]
        assert [*one.needs] == [*sources, own]
        assert own.identity["examples"]["test"]["count"] == 50
        (cell,) = [c for c in plan.cells if c.variant == one]
        assert cell.identity["examples"]["test"]["count"] == 32
        assert (one.identity["metrics"], one.identity["diagnostics"]) == ({}, None)
    before = {v.id for v in make_plan(load_text(FULL)).variants}
    other = make_plan(load_text(FULL.replace("flips: 2", "flips: 3")))
    changed = {v.arm for v in other.variants if v.id not in before}
    assert changed == {v.arm for v in plan.variants if "planted" in v.arm}


@pytest.mark.parametrize(("count", "free"), [(50, 32), (20, 20)])
def test_with_every_token_free_some_examples_are_enough(load_text, count, free):
    text = FULL.replace("full", f"full\nexamples: {{test: {{count: {count}}}}}")
    plan = make_plan(load_text(text))
    asked = {
        cell.attack: cell.identity["examples"]["test"]["count"]
        for cell in plan.cells
        if cell.variant.arm == "monotone"
    }
    unbounded = {"hotflip-unbounded", "hotflip-unbounded-random"}
    assert asked == dict.fromkeys(asked, count) | dict.fromkeys(unbounded, free)


def test_otherwise_no_arms_are_added(load_text):
    assert derived(load_text(FULL.replace("full", "standard"))) == {}
    assert (
        derived(load_text("extends: base.yaml\ndiagnostics: full\nattacks: null")) == {}
    )
    assert derived(load_text(FULL + "recovery: {validation: null}")) == {}


def test_arms_that_a_suite_states_are_left_alone(load_text):
    lines = (
        "arms:\n  monotone-matched: {constraint: none, derive_from: baseline}\n"
        "  copy: {derive_from: monotone}\n"
    )
    found = derived(load_text(FULL + lines))
    assert found["monotone-matched"] == ("none", "baseline", None)
    assert not any(label.startswith("copy-") for label in found)


def test_a_suite_that_holds_its_derived_arms_gets_no_second_ones(load_text):
    first = load_text(FULL)
    again = load_text(dump_suite(first.suite))
    assert again.suite.arms == first.suite.arms
    made = [[unit.id for unit in make_plan(e).variants] for e in (first, again)]
    assert made[0] == made[1]


# --- what cannot be ---------------------------------------------------------------

WRONG = {
    "attacks: {uat: {}, uat-random: {attack: random}}": "attacks.uat: its random would be called 'uat-random', like another entry; give that one another label",
    "attacks: {hotflip: {controls: [benign]}}": "attacks.hotflip: 'benign' cannot be its control: hotflip prepends no trigger, which benign text would replace",
    "attacks: {hotflip: {controls: [randem]}}": "attacks.hotflip: unknown attack 'randem'; did you mean 'random'?",
    "attacks: {hotflip: {controls: [transfer]}}": "attacks.hotflip: 'transfer' cannot be its control: transfer is made of other attacks, and takes no budget",
    "attacks: {permuted: {}}": "attacks.permuted: permuted is a control: state `match`, the attack it accompanies",
    "attacks: {random: {}, permuted: {match: random}}": "attacks.permuted.match: random takes no gradients, so there are none to shuffle",
    "attacks: {hotflip: {}, transfer: {}, random: {match: transfer}}": "attacks.random.match: 'transfer' replays what others found; match an attack",
    "attacks: {hotflip: {}, transfer: {of: hotflop}}": "attacks.transfer.of: unknown attack 'hotflop'; did you mean 'hotflip'?",
    "attacks: {hotflip: {}, worst_case: {}, transfer: {of: [hotflip, worst_case]}}": "attacks.transfer.of: 'worst_case' replays attacks itself; name those",
    "attacks: {worst_case: {}}": "attacks.worst_case.of: there is no attack to replay",
    "attacks: {hotflip: {}, adaptive: {of: hotflip-random}}": "attacks.adaptive.of: 'hotflip-random' is a control; name an attack",
    "attacks: {random: {}, adaptive: {of: random}}": "attacks.adaptive.of: 'random' takes no gradients, so there is nothing to steer",
    "attacks: {hotflip: {}, adaptive: {of: hotflip, through: others}}": "attacks.adaptive.through: unknown arm 'others'; did you mean 'other'?",
}


MUTUAL = '''
from harness import hookimpl
from harness.api import AttackLabel, CellKey, Options
from harness.search import Replay


class Echo(Replay):
    """Reads another attack, whichever."""

    name = "echo"

    class Options(Options):
        of: AttackLabel
        """The other."""

    def reads(self, scene):
        return [CellKey(scene.arm, self.options.of, scene.seed)]


@hookimpl
def register_attacks():
    return [Echo]
'''


def test_attacks_that_would_wait_for_each_other_are_refused(load):
    Path("mutual.py").write_text(MUTUAL, encoding="utf-8")
    lines = "attacks: {b: {attack: echo, of: a}, a: {attack: echo, of: b}}"
    with pytest.raises(SuiteError) as raised:
        load(lines, plugin="mutual.py", arms="{baseline: {}}")
    assert str(raised.value) == (
        "s.yaml:14: attacks.b: waits for its own result: 'b' on 'baseline' reads "
        "'a' on 'baseline' reads 'b' on 'baseline'"
    )
    lines = lines.replace("of: b", "of: flip, ").replace(
        "attacks: {", "attacks: {flip: {attack: toy_flip}, "
    )
    assert list(load(lines, plugin="mutual.py").attacks) == ["flip", "b", "a"]


@pytest.mark.parametrize("lines", WRONG)
def test_what_cannot_be_is_said(load, lines):
    with pytest.raises(SuiteError) as raised:
        load(lines)
    said = str(raised.value).partition(" (known:")[0]
    assert said.partition(": ")[2] == WRONG[lines]
