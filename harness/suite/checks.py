"""What must hold across a suite: references lead somewhere, texts are apart.

The checks read the merged tree rather than a finished `Suite`, so that a fault in one
section hides none in another.
"""

from __future__ import annotations

import fnmatch
import glob
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.api import CORPUS, Attack, Constraint, Plugin, Registry
from harness.base import Problem, unknown_name
from harness.data import CorpusSection
from harness.suite import complaints
from harness.suite.model import Suite
from harness.suite.plugin_options import Plugins, build_plugins, entries_of, marked
from harness.suite.scenes import scene_of
from harness.suite.yaml import Node


def check(
    tree: Node, registry: Registry
) -> tuple[Suite | None, Plugins, list[Problem]]:
    """Validate a merged tree: the suite, its plugins, and all that is wrong."""
    suite, problems = complaints.validate(Suite, tree)
    plugins = build_plugins(tree, registry, problems)
    uses = list(_corpus_uses(tree, plugins))
    problems += _arms_problems(tree, plugins)
    problems += _seed_problems(tree)
    problems += _attack_problems(tree, plugins)
    problems += _unknown_corpora(tree, uses)
    problems += _overlaps(tree, uses)
    return suite, plugins, problems


# --- references ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Use:
    """A place of the suite that names a corpus."""

    path: str
    node: Node
    role: str
    """training, search, validation, test or measured."""


def _corpus_uses(tree: Node, plugins: Plugins) -> Iterator[_Use]:
    fixed = (
        ("recovery", "corpus", "training"),
        ("recovery", "validation", "measured"),
        ("examples.test", "corpus", "test"),
        ("examples.search", "corpus", "search"),
        ("examples.validation", "corpus", "validation"),
    )
    for section, key, role in fixed:
        path = (*section.split("."), key)
        node, followed = tree.find(path)
        if len(followed) == len(path) and isinstance(node.value, str):
            yield _Use(".".join(path), node, role)
    for section, label, plugin in _all_plugins(plugins):
        for key in marked(type(plugin.options), CORPUS):
            node, followed = tree.find((section, label, key))
            if followed[2:]:
                yield from _named(f"{section}.{label}.{key}", node)


def _all_plugins(plugins: Plugins) -> Iterator[tuple[str, str, Plugin[Any]]]:
    for section, built in plugins.items():
        for label, plugin in built.items():
            yield section, label, plugin


def _named(path: str, node: Node) -> Iterator[_Use]:
    if isinstance(node.value, str):
        yield _Use(path, node, "measured")
    for index, item in enumerate(node.value if isinstance(node.value, list) else []):
        yield from _named(f"{path}.{index}", item)


def _unknown_corpora(tree: Node, uses: list[_Use]) -> Iterator[Problem]:
    corpora = tree.child("corpora")
    known = corpora.value if corpora and isinstance(corpora.value, dict) else {}
    for use in uses:
        if use.node.value not in known:
            message = unknown_name("corpus", use.node.value, known)
            yield use.node.place.problem(use.path, message)


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


def _overlaps(tree: Node, uses: list[_Use]) -> Iterator[Problem]:
    sources = _sources(tree)
    for index, second in enumerate(uses):
        for first in uses[:index]:
            if frozenset((first.role, second.role)) not in _APART:
                continue
            one, other = (sources.get(use.node.value) for use in (first, second))
            shared = overlap(one, other) if one and other else None
            if shared:
                message = f"{shared} with {first.path}; give them disjoint slices"
                yield second.node.place.problem(second.path, message)


def _sources(tree: Node) -> dict[str, Source]:
    sources = {}
    for label, node in entries_of(tree, "corpora").items():
        section, _ = complaints.validate(CorpusSection, node)
        if section is not None:
            sources[label] = Source.of(section)
    return sources


SOURCE_KEYS = ("derive_from", "match_loss_of")
"""The keys of an arm that name other arms."""


# --- rules --------------------------------------------------------------------------


def _arms_problems(tree: Node, plugins: Plugins) -> Iterator[Problem]:
    arms = tree.child("arms")
    if arms is None or not isinstance(arms.value, dict) or not arms.value:
        return
    if "baseline" not in arms.value:
        message = "needs an arm called 'baseline', which all others are compared with"
        yield arms.place.problem("arms", message)
    for label, node in entries_of(tree, "arms").items():
        yield from _source_problems(label, node, arms.value)
        yield from _unknown_attacks(label, node, tree)
        constraint = plugins["arms"].get(label)
        if isinstance(constraint, Constraint):
            yield from _need_problems(label, node, constraint, tree)


def _source_problems(
    label: str, node: Node, arms: dict[str, Node]
) -> Iterator[Problem]:
    """Check the arms that an arm is made from: they are known, and no circle."""
    for key in SOURCE_KEYS:
        source = node.child(key)
        if source is None or not isinstance(source.value, str):
            continue
        path, message = f"arms.{label}.{key}", None
        if source.value not in arms:
            message = unknown_name("arm", source.value, arms)
        elif label == "baseline":
            message = "the baseline is what others are compared with: it has no source"
        elif label in _made_from(source.value, arms) and _is_first(label, arms):
            message = f"{label!r} would be made from itself"
        if message:
            yield source.place.problem(path, message)


def _made_from(arm: str, arms: dict[str, Node]) -> set[str]:
    """Return an arm and all that it is made from, in a tree that may have circles."""
    found: set[str] = set()
    waiting = [arm]
    while waiting:
        name = waiting.pop()
        if name in found or name not in arms:
            continue
        found.add(name)
        stated = [arms[name].child(key) for key in SOURCE_KEYS]
        waiting += [n.value for n in stated if n and isinstance(n.value, str)]
    return found


def _is_first(label: str, arms: dict[str, Node]) -> bool:
    """Say whether no arm before this one is in a circle with it: one is enough."""
    before = list(arms)[: list(arms).index(label)]
    own = _made_from(label, arms)
    return not any(arm in own and label in _made_from(arm, arms) for arm in before)


def _unknown_attacks(label: str, node: Node, tree: Node) -> Iterator[Problem]:
    attacks, stated = tree.child("attacks"), node.child("attacks")
    known = attacks.value if attacks and isinstance(attacks.value, dict) else {}
    for item in stated.value if stated and isinstance(stated.value, list) else []:
        if isinstance(item.value, str) and item.value not in known:
            message = unknown_name("attack", item.value, known)
            yield item.place.problem(f"arms.{label}.attacks", message)


def _need_problems(
    label: str, node: Node, constraint: Constraint[Any], tree: Node
) -> Iterator[Problem]:
    """Check what a constraint needs besides its options."""
    match, path = node.child("match_loss_of"), f"arms.{label}"
    stated = match is not None and match.value is not None
    if stated and not constraint.matches_loss:
        message = f"{constraint.name!r} as stated here matches no loss"
        yield node.place.problem(f"{path}.match_loss_of", message)
    if constraint.matches_loss and not stated:
        message = "needs `match_loss_of`: the arm whose clean loss it is to have"
        yield node.place.problem(path, message)
    if constraint.uses_examples and not _has(tree, "examples"):
        yield node.place.problem(path, "needs examples: state `examples.test`")
    elif constraint.uses_examples and not (
        _has(tree, "examples", "validation") or _has(tree, "recovery", "validation")
    ):
        message = "needs `examples.validation`, or `recovery.validation` to cut some of"
        yield node.place.problem(path, message)


def _has(tree: Node, *path: str) -> bool:
    node, followed = tree.find(path)
    return len(followed) == len(path) and node.value is not None


def _seed_problems(tree: Node) -> Iterator[Problem]:
    seeds = tree.child("seeds")
    seen = set()
    for node in seeds.value if seeds and isinstance(seeds.value, list) else []:
        if isinstance(node.value, int) and node.value in seen:
            yield node.place.problem("seeds", f"{node.value} is stated twice")
        seen.add(node.value if isinstance(node.value, int) else None)


def _attack_problems(tree: Node, plugins: Plugins) -> Iterator[Problem]:
    attacks = tree.child("attacks")
    labels = attacks.value if attacks and isinstance(attacks.value, dict) else {}
    examples = tree.child("examples")
    if attacks and labels and (examples is None or examples.value is None):
        message = "attacks need examples: state `examples.test`"
        yield attacks.place.problem("attacks", message)
    for label, node in entries_of(tree, "attacks").items():
        yield from _match_problems(label, node, labels)
        attack = plugins["attacks"].get(label)
        if isinstance(attack, Attack):
            yield from _control_problems(label, node, attack, plugins["attacks"])
        if examples and isinstance(attack, Attack) and attack.uses_search_examples:
            yield from _search_problems(label, node, examples)


def _match_problems(
    label: str, node: Node, labels: dict[str, Node]
) -> Iterator[Problem]:
    match = node.child("match")
    if match is None or not isinstance(match.value, str):
        return
    target = labels.get(match.value)
    message = None
    if target is None:
        message = unknown_name("attack", match.value, labels)
    elif match.value == label:
        message = "an attack cannot be its own control"
    elif target.child("match") is not None:
        message = f"{match.value!r} is a control itself; match an attack"
    if message:
        yield match.place.problem(f"attacks.{label}.match", message)


def _control_problems(
    label: str, node: Node, attack: Attack[Any], attacks: dict[str, Plugin[Any]]
) -> Iterator[Problem]:
    """Say where an attack cannot be the control it is to be, or not be without one."""
    match = node.child("match")
    matched: Attack[Any] | None = None
    if match is not None and match.value is not None:
        found = attacks.get(match.value)
        if not isinstance(found, Attack):  # said above, or of its own options
            return
        matched = found
        if matched.replays:
            message = f"{match.value!r} replays what others found; match an attack"
            yield match.place.problem(f"attacks.{label}.match", message)
            return
    reason = attack.unfit(matched)
    if reason:
        place = (match or node).place
        yield place.problem(f"attacks.{label}", reason)


def placement_problems(
    suite: Suite, attacks: dict[str, Attack[Any]], tree: Node
) -> Iterator[Problem]:
    """Say which options of attacks name an attack or an arm that the suite lacks."""
    for label, attack in attacks.items():
        for option, message in attack.faults(scene_of(suite, attacks)):
            path = ("attacks", label, option)
            place = tree.find(path)[0].place
            yield place.problem(".".join(path), message)


def _search_problems(label: str, node: Node, examples: Node) -> Iterator[Problem]:
    for name in ("search", "validation"):
        stated = examples.child(name)
        if isinstance(examples.value, dict) and (stated is None or not stated.value):
            message = f"needs `examples.{name}`, apart from the test examples"
            yield node.place.problem(f"attacks.{label}", message)


@dataclass(frozen=True)
class Source:
    """Where a corpus takes its documents from, and which."""

    kind: str
    """``path``, ``dataset`` or ``builtin``."""
    name: str
    files: str
    """What of a dataset: its files, or else its split."""
    slice: str

    @classmethod
    def of(cls, corpus: CorpusSection) -> Source:
        """Return the source of a corpus."""
        if corpus.path is not None:
            return cls("path", corpus.path, "", corpus.slice)
        if corpus.dataset is not None:
            files = corpus.files or f"split {corpus.split}"
            return cls("dataset", corpus.dataset, files, corpus.slice)
        return cls("builtin", str(corpus.builtin), "", corpus.slice)


def overlap(first: Source, second: Source) -> str | None:
    """Say how two sources share documents, as the head of a sentence; None if not.

    Slices in different units cannot be told apart without reading the text, so they
    count as overlapping unless one of them is empty.
    """
    if not _same_text(first, second):
        return None
    if _same_files(first, second):
        a, b = _bounds(first.slice), _bounds(second.slice)
        if _empty(a) or _empty(b) or _disjoint(a, b):
            return None
        if not _comparable(a, b):
            return f"cannot be shown to share no document ({_slices(first, second)})"
    return f"shares documents of {first.name} ({_slices(first, second)})"


def _same_text(first: Source, second: Source) -> bool:
    if first.kind != second.kind:
        return False
    if first.kind == "path":
        return bool(_expand(first.name) & _expand(second.name))
    one, other = first.files, second.files
    globs = fnmatch.fnmatch(one, other) or fnmatch.fnmatch(other, one)
    return first.name == second.name and globs


def _same_files(first: Source, second: Source) -> bool:
    """Tell whether slices of the two count the same documents."""
    if first.kind == "path":
        return _expand(first.name) == _expand(second.name)
    return first.files == second.files


def _expand(pattern: str) -> set[str]:
    found = [] if os.path.exists(pattern) else glob.glob(pattern)  # noqa: PTH110,PTH207
    return {os.path.realpath(path) for path in found or [pattern]}


_Bound = tuple[float, str]
"""A number and its unit: ``%``, ``n``, or empty for an open end."""


def _bounds(text: str) -> tuple[_Bound, _Bound]:
    start, stop = text.split(":")
    return _bound(start, 0.0), _bound(stop, math.inf)


def _bound(text: str, default: float) -> _Bound:
    if not text or float(text.rstrip("%")) == 0:
        return (0.0 if text else default), ""
    if text == "100%":
        return math.inf, ""
    return float(text.rstrip("%")), "%" if text.endswith("%") else "n"


def _comparable(a: tuple[_Bound, _Bound], b: tuple[_Bound, _Bound]) -> bool:
    return len({unit for _, unit in (*a, *b) if unit}) <= 1


def _empty(a: tuple[_Bound, _Bound]) -> bool:
    return _comparable(a, a) and a[0][0] >= a[1][0]


def _disjoint(a: tuple[_Bound, _Bound], b: tuple[_Bound, _Bound]) -> bool:
    """Compare one end with the other's start, where both have the same unit."""
    return _before(a[1], b[0]) or _before(b[1], a[0])


def _before(stop: _Bound, start: _Bound) -> bool:
    return stop[1] == start[1] and stop[0] <= start[0]


def _slices(first: Source, second: Source) -> str:
    return f"slices {second.slice!r} and {first.slice!r}"
