"""What must hold across a suite: references lead somewhere, texts are apart.

Checks see what is valid of a suite as typed sections, so that a fault in one hides none
in another. What is absent is looked up in the merged layers: there, a section that is
wrong is still there.
"""

from __future__ import annotations

import graphlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, TypeVar

from harness.api import ATTACK, CORPUS, Attack, CellKey, Constraint, Registry
from harness.base import unknown_name
from harness.data import shared_documents
from harness.suite import complaints
from harness.suite.experiment import Experiment
from harness.suite.marks import Marked, marked
from harness.suite.model import (
    ARM,
    BASELINE,
    ArmSection,
    AttackSection,
    ModelSection,
    Suite,
)
from harness.suite.plugin_options import Plugins, build_plugins
from harness.suite.yaml import Keys, Layer

T = TypeVar("T")
Fault = tuple[Keys, str]
"""A path, and what is wrong there."""


def check(layer: Layer, registry: Registry) -> tuple[Suite, Plugins]:
    """Return a suite and its plugins, as far as they are valid.

    What is wrong is complained of in `layer`.
    """
    suite: Suite | None = complaints.validate(Suite, layer.value, layer)
    plugins = build_plugins(layer, registry)
    if suite is None:
        suite = complaints.valid_part(_PartialSuite, layer.value)
    draft = _Draft(layer, suite, plugins)
    for rule in _RULES:
        for keys, message in rule(draft):
            layer.complain(keys, message)
    return suite, plugins


def check_placement(experiment: Experiment) -> None:
    """Complain of attacks that name what the suite lacks, or else read each other."""
    faults = [
        (("attacks", label, option), message)
        for label, attack in experiment.attacks.items()
        for option, message in attack.faults(experiment.scene())
    ]
    for keys, message in faults or _mutual_reads(experiment):
        experiment.layer.complain(keys, message)


def _mutual_reads(experiment: Experiment) -> Iterator[Fault]:
    reads = {
        CellKey(arm, label, seed): experiment.attacks[label].reads(scene)
        for arm in experiment.suite.arms
        for seed in experiment.suite.seeds
        for scene in [experiment.scene(arm, seed)]
        for label in scene.gets[arm]
    }
    for circle in _circles(reads):
        names = [f"{key.attack!r} on {key.arm!r}" for key in (*circle, circle[0])]
        message = f"waits for its own result: {' reads '.join(names)}"
        yield ("attacks", circle[0].attack), message


class _PartialSuite(Suite):
    """A suite that may lack what a suite must have."""

    name: str = ""
    models: dict[str, ModelSection] = {}
    arms: dict[str, ArmSection] = {}
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Draft:
    """A suite that may be wrong."""

    layer: Layer
    """All of it, as it is stated."""
    suite: Suite
    """What is valid of it."""
    plugins: Plugins
    """Those whose options are right."""

    @property
    def attacks(self) -> Iterator[tuple[str, Attack[Any]]]:
        """The attacks by label."""
        for label, attack in self.plugins["attacks"].items():
            assert isinstance(attack, Attack)
            yield label, attack

    @cached_property
    def references(self) -> list[Marked]:
        """All that the suite, or an option of its plugins, names."""
        found = list(marked(Suite, self.layer.value))
        for section, plugins in self.plugins.items():
            for label, plugin in plugins.items():
                options = self.layer.get(section, label)
                for mark, text, keys in marked(type(plugin.options), options):
                    if mark == CORPUS:  # attacks may name those that are added later
                        found.append(Marked(mark, text, (section, label, *keys)))
        return found


# --- references ---------------------------------------------------------------------

_NAMED = {
    CORPUS: ("corpus", "corpora"),
    ATTACK: ("attack", "attacks"),
    ARM: ("arm", "arms"),
}
"""What a mark stands for, and the section whose labels it names."""
_ROLES: dict[Keys, str] = {
    ("recovery", "corpus"): "training",
    ("examples", "test", "corpus"): "test",
    ("examples", "search", "corpus"): "search",
    ("examples", "validation", "corpus"): "validation",
}
"""What a corpus serves for; all others are measured on."""
_APART = {
    frozenset(pair)
    for pair in (
        ("search", "validation"),
        ("search", "test"),
        ("validation", "test"),
        ("training", "test"),
        ("training", "measured"),
    )
}
"""Roles that must not share a document."""


def _unknown_names(draft: _Draft) -> Iterator[Fault]:
    for mark, text, keys in draft.references:
        kind, section = _NAMED[mark]
        known = draft.layer.mapping(section)
        if text not in known:
            yield keys, unknown_name(kind, text, known)


def _texts_apart(draft: _Draft) -> Iterator[Fault]:
    corpora = draft.suite.corpora
    uses = [
        use for use in draft.references if use.mark == CORPUS and use.text in corpora
    ]
    for first, second in combinations(uses, 2):
        roles = (_ROLES.get(use.keys, "measured") for use in (first, second))
        if frozenset(roles) in _APART:
            shared = shared_documents(corpora[first.text], corpora[second.text])
            if shared:
                where = ".".join(map(str, first.keys))
                yield second.keys, f"{shared} with {where}; give them disjoint slices"


# --- arms ---------------------------------------------------------------------------


def _baseline(draft: _Draft) -> Iterator[Fault]:
    arms = draft.layer.mapping("arms")
    if arms and BASELINE not in arms:
        yield (
            ("arms",),
            "needs an arm called 'baseline', which all others are compared with",
        )
    baseline = draft.suite.arms.get(BASELINE, ArmSection())
    for key, source in baseline.sources.items():
        if source in arms:
            message = "the baseline is what others are compared with: it has no source"
            yield ("arms", BASELINE, key), message


def _sources(draft: _Draft) -> Iterator[Fault]:
    """Find arms that would be made from themselves."""
    arms = draft.suite.arms
    graph = {label: arms[label].sources.values() for label in arms if label != BASELINE}
    for circle in _circles(graph):
        sources = arms[circle[0]].sources.items()
        key = next(key for key, arm in sources if arm in circle)
        yield ("arms", circle[0], key), f"{circle[0]!r} would be made from itself"


def _circles(graph: Mapping[T, Iterable[T]]) -> Iterator[list[T]]:
    """Yield circles, each from its first node in the graph's order."""
    graph = {node: [x for x in after if x in graph] for node, after in graph.items()}
    while True:
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            circle = error.args[1][:0:-1]  # it ends with its start, and comes reversed
            start = min(range(len(circle)), key=lambda i: list(graph).index(circle[i]))
            yield [*circle[start:], *circle[:start]]
            graph[circle[start]] = []
        else:
            return


def _constraints(draft: _Draft) -> Iterator[Fault]:
    """Check what a constraint needs besides its options."""
    for label, constraint in draft.plugins["arms"].items():
        arm, path = draft.suite.arms.get(label), ("arms", label)
        assert isinstance(constraint, Constraint)
        if arm is None:
            continue
        if arm.match_loss_of is not None and not constraint.matches_loss:
            message = f"{constraint.name!r} as stated here matches no loss"
            yield (*path, "match_loss_of"), message
        if constraint.matches_loss and arm.match_loss_of is None:
            yield path, "needs `match_loss_of`: the arm whose clean loss it is to have"
        if constraint.uses_examples:
            yield from ((path, message) for message in _lacking_examples(draft.layer))


def _lacking_examples(layer: Layer) -> Iterator[str]:
    if layer.get("examples") is None:
        yield "needs examples: state `examples.test`"
    elif not (
        layer.get("examples", "validation") or layer.get("recovery", "validation")
    ):
        yield "needs `examples.validation`, or `recovery.validation` to cut some of"


# --- attacks and seeds --------------------------------------------------------------


def _examples(draft: _Draft) -> Iterator[Fault]:
    """Check that there are the examples that attacks need."""
    layer = draft.layer
    if layer.mapping("attacks") and layer.get("examples") is None:
        yield ("attacks",), "attacks need examples: state `examples.test`"
        return
    for label, attack in draft.attacks:
        if attack.uses_search_examples:
            for name in ("search", "validation"):
                if not layer.get("examples", name):
                    message = f"needs `examples.{name}`, apart from the test examples"
                    yield ("attacks", label), message


def _controls(draft: _Draft) -> Iterator[Fault]:
    """Say where an attack cannot be the control it is to be, or not be without one."""
    attacks = dict(draft.attacks)
    for label, section in draft.suite.attacks.items():
        reason = _unfit(label, draft.suite.attacks, attacks)
        if reason:
            match = () if section.match is None else ("match",)
            yield ("attacks", label, *match), reason


def _unfit(
    label: str, sections: dict[str, AttackSection], attacks: dict[str, Attack[Any]]
) -> str | None:
    attack, match = attacks.get(label), sections[label].match
    matched = None if match is None else attacks.get(match)
    if match == label:
        return "an attack cannot be its own control"
    if match in sections and sections[match].match is not None:
        return f"{match!r} is a control itself; match an attack"
    if matched is not None and matched.replays:
        return f"{match!r} replays what others found; match an attack"
    if attack is None or (match is not None and matched is None):
        return None  # what is wrong there is said there
    return attack.unfit(matched)


def _seeds(draft: _Draft) -> Iterator[Fault]:
    seeds = draft.layer.get("seeds")
    for index, seed in enumerate(seeds if isinstance(seeds, list) else []):
        if seed in seeds[:index]:
            yield ("seeds", index), f"{seed} is stated twice"


_RULES: tuple[Callable[[_Draft], Iterator[Fault]], ...] = (
    _unknown_names,
    _texts_apart,
    _baseline,
    _sources,
    _constraints,
    _examples,
    _controls,
    _seeds,
)
