"""What must hold across a suite: references lead somewhere, texts are apart.

Checks see the merged layers, the plugins whose options are right, and all that anything
names, found by the marks of its type. So a fault in one section hides none in another.
"""

from __future__ import annotations

import contextlib
import graphlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from typing import Any, TypeVar, cast

import pydantic

from harness.api import ATTACK, CORPUS, Attack, CellKey, Constraint, Metric, Registry
from harness.base import UsageError, shortened, unknown_name
from harness.data import CorpusSection, matching, shared_documents
from harness.suite import complaints
from harness.suite.experiment import Experiment
from harness.suite.marks import Marked, marked
from harness.suite.model import ArmSection, Suite
from harness.suite.names import ARM, BASELINE
from harness.suite.plugin_options import (
    Plugins,
    build_plugins,
    copy_replicated,
    make_absolute,
)
from harness.suite.unloaded import Unloaded
from harness.suite.yaml import Keys, Layer

T = TypeVar("T")
Fault = tuple[Keys, str]
"""A path, and what is wrong there."""


def check(layer: Layer, registry: Registry) -> tuple[Suite | None, Plugins]:
    """Return the suite, if it is valid, and its plugins, those that are.

    What is wrong is complained of in `layer`.
    """
    for label, _ in layer.entries("corpora"):
        make_absolute(layer, ("corpora", label, "path"), hub=False)
    copy_replicated(layer)
    plugins = build_plugins(layer, registry)
    suite = complaints.validate(Suite, layer.value, layer)
    draft = _Draft(layer, _loaded(plugins))
    for rule in _RULES:
        for keys, message in rule(draft):
            layer.complain(keys, message)
    return suite, plugins


def _loaded(plugins: Plugins) -> Plugins:
    """Leave out what stands in for plugins that are not loaded: it has no needs."""
    return {
        section: {k: x for k, x in built.items() if not isinstance(x, Unloaded)}
        for section, built in plugins.items()
    }


def check_placement(experiment: Experiment) -> None:
    """Complain of attacks that name what the suite lacks, or else read each other.

    And of arms that read what attacks did to another one which gets none of them.
    """
    for label, constraint in experiment.arms.items():
        source = experiment.suite.arms[label].derive_from
        if constraint.reads_attacks and not experiment.searches(label, str(source)):
            message = f"gets no attack that searches and that {source!r} gets, too"
            experiment.layer.complain(("arms", label), message)
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
        for seed in experiment.suite.seeds_of(arm)
        for scene in [experiment.scene(arm, seed)]
        for label in scene.gets[arm]
    }
    for circle in _circles(reads):
        names = [f"{key.attack!r} on {key.arm!r}" for key in (*circle, circle[0])]
        message = f"waits for its own result: {' reads '.join(names)}"
        yield ("attacks", circle[0].attack), message


@dataclass(frozen=True)
class _Draft:
    """A suite that may be wrong."""

    layer: Layer
    """All of it, as it is stated."""
    plugins: Plugins
    """Those whose options are right."""

    @property
    def attacks(self) -> dict[str, Attack[Any]]:
        """The attacks among the plugins."""
        return cast("dict[str, Attack[Any]]", self.plugins["attacks"])

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

    def named(self, mark: str) -> Iterator[tuple[Keys, str]]:
        """Yield what is named of one kind and is there, and where it is named.

        Claims name much, too: that is another matter.
        """
        known = self.layer.mapping(_NAMED[mark][1])
        for mark_, text, keys in self.references:
            if mark_ == mark and text in known and keys[0] != "claims":
                yield keys, text


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
    corpora: dict[str, CorpusSection] = {}
    for label, entry in draft.layer.entries("corpora"):
        with contextlib.suppress(pydantic.ValidationError):  # said of the section
            corpora[label] = CorpusSection.model_validate(entry)
    for label in [*corpora]:
        try:
            matching(corpora[label].path or "")
        except UsageError as error:
            yield ("corpora", label, "path"), str(error)
            del corpora[label]
    uses = [use for use in draft.named(CORPUS) if use[1] in corpora]
    # What is measured need only be apart from training, and there may be much of it.
    named = [use for use in uses if use[0] in _ROLES]
    measured = [use for use in uses if use[0] not in _ROLES]
    place = {use: number for number, use in enumerate(uses)}
    pairs = [*combinations(named, 2), *product(named, measured)]
    ordered = sorted(sorted(map(place.__getitem__, pair)) for pair in pairs)
    for (first, one), (second, other) in ([uses[x], uses[y]] for x, y in ordered):
        roles = (_ROLES.get(keys, "measured") for keys in (first, second))
        if frozenset(roles) in _APART:
            shared = shared_documents(corpora[one], corpora[other])
            if shared:
                where = ".".join(map(str, first))
                yield second, f"{shared} with {where}; give them disjoint slices"


# --- arms ---------------------------------------------------------------------------


def _baseline(draft: _Draft) -> Iterator[Fault]:
    arms = draft.layer.mapping("arms")
    if arms and BASELINE not in arms:
        message = (
            f"needs an arm called {BASELINE!r}, which all others are compared with"
        )
        yield ("arms",), message
    for keys, _ in draft.named(ARM):
        if keys[1] == BASELINE:
            lacks = "reference" if keys[-1] == "against" else "source"
            message = (
                f"the baseline is what others are compared with: it has no {lacks}"
            )
            yield keys, message


def _sources(draft: _Draft) -> Iterator[Fault]:
    """Find arms that would be made from themselves, or held against themselves."""
    made_from = {*ArmSection.SOURCES, "replicate"}
    yield from _back_to_itself(draft, made_from, "made from")
    yield from _back_to_itself(draft, {"against"}, "held against")


def _back_to_itself(draft: _Draft, names: set[str], what: str) -> Iterator[Fault]:
    """Find circles among the arms that arms name by some of their keys."""
    named = {
        keys: arm
        for keys, arm in draft.named(ARM)
        if keys[1] != BASELINE and keys[-1] in names
    }
    graph: dict[object, list[str]] = {arm: [] for arm in draft.layer.mapping("arms")}
    for keys, arm in named.items():
        graph[keys[1]].append(arm)
    for first, *others in _circles(graph):
        after = (*others, first)[0]
        keys = next(k for k, arm in named.items() if (k[1], arm) == (first, after))
        yield keys, f"{first!r} would be {what} itself"


def _references(draft: _Draft) -> Iterator[Fault]:
    """Find verdicts that would be about arms that are derived from others."""
    for keys, arm in draft.named(ARM):
        if keys[-1] != "against":
            continue
        if draft.layer.get("arms", keys[1], "derive_from") is not None:
            yield keys, "an arm with `derive_from` is held against none"
        elif draft.layer.get("arms", arm, "derive_from") is not None:
            yield keys, f"{arm!r} is derived from another arm; name one that is not"


def _replicas(draft: _Draft) -> Iterator[Fault]:
    """Find replicas of arms that have no training of their own to repeat."""
    for keys, arm in draft.named(ARM):
        if keys[-1] != "replicate" or arm == keys[1]:
            continue
        replicated = draft.layer.mapping("arms", arm)
        if replicated.get("replicate") is not None:
            yield keys, f"{arm!r} is a replica itself; name the arm that it is"
        elif replicated.get("derive_from") is not None:
            yield keys, f"{arm!r} is derived from another arm; name one that is not"
        elif not draft.layer.get("recovery") or replicated.get("recovery") is False:
            yield keys, f"{arm!r} gets no `recovery`, whose order a replica changes"


def _readings(draft: _Draft) -> Iterator[Fault]:
    """Find arms that do not say which other tokens they read, or have none to read."""
    for label, entry in draft.layer.entries("arms"):
        stated, keys = entry.get("recovery"), ("arms", label, "recovery")
        if stated == {}:
            yield keys, "state `corrupt`, `adversarial` or both; or true or false"
        elif isinstance(stated, dict) and not draft.layer.get("recovery"):
            yield keys, "says how tokens are read, and the suite has no `recovery`"


def _devices(draft: _Draft) -> Iterator[Fault]:
    """Find a device that is one GPU where training takes several, the first of all."""
    device, count = draft.layer.get("device"), draft.layer.get("recovery", "devices")
    another = re.fullmatch(r"cuda:0*[1-9]\d*", str(device))
    if another and isinstance(count, int) and count > 1:
        yield (
            ("device",),
            f"names one GPU, and `recovery.devices` is {count}: "
            "write cuda, and choose GPUs by CUDA_VISIBLE_DEVICES",
        )


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
    for label, plugin in draft.plugins["arms"].items():
        constraint, path = cast("Constraint[Any]", plugin), ("arms", label)
        matched = draft.layer.get(*path, "match_loss_of")
        if matched is not None and not constraint.matches_loss:
            message = f"{constraint.name!r} as stated here matches no loss"
            yield (*path, "match_loss_of"), message
        if constraint.matches_loss and matched is None:
            yield path, "needs `match_loss_of`: the arm whose clean loss it is to have"
        if draft.layer.get(*path, "weaker_than") and constraint.role != "plant":
            message = f"{constraint.name!r} plants no weakness"
            yield (*path, "weaker_than"), message
        if constraint.reads_attacks and not draft.layer.get(*path, "derive_from"):
            yield path, "needs `derive_from`: the arm whose dL under attack it exceeds"
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
    for label, attack in draft.attacks.items():
        if attack.uses_search_examples:
            for name in ("search", "validation"):
                if not layer.get("examples", name):
                    message = f"needs `examples.{name}`, apart from the test examples"
                    yield ("attacks", label), message


def _controls(draft: _Draft) -> Iterator[Fault]:
    """Say where an attack cannot be the control it is to be, or not be without one."""
    for label, entry in draft.layer.entries("attacks"):
        match = entry.get("match")
        keys: Keys = (
            ("attacks", label) if match is None else ("attacks", label, "match")
        )
        reason = _unfit(draft, label, match)
        if reason:
            yield keys, reason


def _unfit(draft: _Draft, label: str, match: str | None) -> str | None:
    attack, matched = draft.attacks.get(label), draft.attacks.get(str(match))
    if match == label:
        return "an attack cannot be its own control"
    if match and draft.layer.get("attacks", match, "match") is not None:
        return f"{match!r} is a control itself; match an attack"
    if matched and matched.replays:
        return f"{match!r} replays what others found; match an attack"
    if attack is None or (match and not matched):
        return None  # what is wrong there is said there
    return attack.unfit(matched)


def _seeds(draft: _Draft) -> Iterator[Fault]:
    """Find seeds that are stated twice, and those of arms that are not there."""
    layer = draft.layer
    known = _listed(layer, "seeds")
    yield from _twice(known, ("seeds",))
    for arm, entry in layer.entries("arms"):
        keys, stated = ("arms", arm, "seeds"), _listed(layer, "arms", arm, "seeds")
        yield from _twice(stated, keys)
        if stated and arm == BASELINE:
            yield (
                keys,
                "the baseline is what others are compared with: it gets all seeds",
            )
        for seed in stated:
            for name, seeds in _seeds_of_sources(layer, entry):
                if seed not in seeds:
                    listed = ", ".join(map(str, seeds))
                    message = f"{seed} is no seed of {name}, which has {listed}"
                    yield (*keys, stated.index(seed)), message
                    break


def _seeds_of_sources(
    layer: Layer, entry: Mapping[str, Any]
) -> Iterator[tuple[str, list[Any]]]:
    """Yield what an arm's seeds have to be among: by name, the seeds that it states."""
    yield "the suite", _listed(layer, "seeds")
    for key in (*ArmSection.SOURCES, "replicate"):
        source = entry.get(key)
        if isinstance(source, str) and (
            seeds := _listed(layer, "arms", source, "seeds")
        ):
            yield f"the arm {source!r}", seeds


def _listed(layer: Layer, *keys: str | int) -> list[Any]:
    found = layer.get(*keys)
    return found if isinstance(found, list) else []


def _twice(seeds: list[Any], keys: Keys) -> Iterator[Fault]:
    known: set[str] = set()
    for index, seed in enumerate(map(repr, seeds)):
        if seed in known:
            yield (*keys, index), f"{shortened(seed)} is stated twice"
        known.add(seed)


# --- claims -------------------------------------------------------------------------

_NUMBERS = {"metric": ("change", "gap"), "attack": ("success", "dL")}
"""What claims can be about, and which of its numbers."""


def _claims(draft: _Draft) -> Iterator[Fault]:
    """Find claims that could never be answered."""
    for group in draft.layer.mapping("claims"):
        for label, entry in draft.layer.mapping("claims", group).items():
            if isinstance(entry, dict):
                keys: Keys = ("claims", group, label)
                yield from _number(entry, keys)
                yield from _sides(draft, entry, keys)
                if isinstance(entry.get("metric"), str):
                    fault = _unknown_number(draft, entry["metric"])
                    if fault:
                        yield (*keys, "metric"), fault


def _number(entry: Mapping[str, Any], keys: Keys) -> Iterator[Fault]:
    """Say where a claim does not name exactly one number of one thing."""
    about = [name for name in _NUMBERS if entry.get(name) is not None]
    if len(about) != 1:
        yield keys, "needs either `metric` or `attack`: what it is about"
        return
    own, others = _NUMBERS[about[0]], {x for y in _NUMBERS.values() for x in y}
    stated = [name for name in entry if name in others and entry[name] is not None]
    foreign = [name for name in stated if name not in own]
    either = " or ".join(f"`{name}`" for name in own)
    if foreign:
        yield (
            (*keys, foreign[0]),
            f"is no number of a claim with `{about[0]}`: {either}",
        )
    elif len(stated) != 1:
        yield keys, f"needs either {either}: the bound of the {about[0]}"


def _sides(draft: _Draft, entry: Mapping[str, Any], keys: Keys) -> Iterator[Fault]:
    """Say where the two arms of a claim cannot be compared."""
    arm, layer = entry.get("arm"), draft.layer
    stated = arm if isinstance(arm, str) else ""
    own = layer.mapping("arms", stated)
    against = entry.get("against") or own.get("against") or own.get("replicate")
    against = against or BASELINE
    if against == arm:
        yield (*keys, "against"), f"{arm!r} would be compared with itself"
    attack = str(entry.get("attack"))
    for side in (stated, against):
        gets = layer.get("arms", str(side), "attacks")
        known = attack in layer.mapping("attacks") and isinstance(gets, list)
        if known and attack not in gets:
            yield (*keys, "attack"), f"the arm {side!r} does not get {attack!r}"


def _unknown_number(draft: _Draft, stated: str) -> str | None:
    """Say that a metric's number is unknown, as far as that can be told beforehand."""
    labels = draft.layer.mapping("metrics")
    fitting = [x for x in labels if stated == x or stated.startswith(f"{x}.")]
    if not fitting:
        return unknown_name("metric", stated.partition(".")[0], labels)
    label = max(fitting, key=len)
    metric = cast("Metric[Any] | None", draft.plugins["metrics"].get(label))
    names = metric.estimate_names() if metric else ()
    name = stated.removeprefix(label).removeprefix(".")
    if not name and not names:
        return f"names no number of {label!r}: append one, as {label}.NAME"
    parts = [name == x or (x.endswith(".") and name.startswith(x)) for x in names]
    if any(parts) or not names:
        return None
    known = [f"{label}.{x}{'NAME' if x.endswith('.') else ''}" for x in names]
    return unknown_name("number", stated, known)


_RULES: tuple[Callable[[_Draft], Iterator[Fault]], ...] = (
    _unknown_names,
    _texts_apart,
    _baseline,
    _sources,
    _references,
    _replicas,
    _readings,
    _devices,
    _constraints,
    _examples,
    _controls,
    _seeds,
    _claims,
)
