"""What must hold across a suite: references lead somewhere, texts are apart.

The checks read the merged tree rather than a finished `Suite`, so that a fault in one
section hides none in another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.errors import Problem, unknown_name
from harness.interfaces import CORPUS, Attack, Plugin
from harness.registry import Registry
from harness.suite import CorpusSection, Suite
from harness.suites import complaints
from harness.suites.located import Node
from harness.suites.plugin_options import Plugins, build_plugins, entries_of, marked
from harness.suites.slices import Source, overlap


def check(
    tree: Node, registry: Registry
) -> tuple[Suite | None, Plugins, list[Problem]]:
    """Validate a merged tree: the suite, its plugins, and all that is wrong."""
    suite, problems = complaints.validate(Suite, tree)
    plugins = build_plugins(tree, registry, problems)
    uses = list(_corpus_uses(tree, plugins))
    problems += _arms_problems(tree)
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


# --- rules --------------------------------------------------------------------------


def _arms_problems(tree: Node) -> Iterator[Problem]:
    arms = tree.child("arms")
    if arms is None or not isinstance(arms.value, dict) or not arms.value:
        return
    if "baseline" not in arms.value:
        message = "needs an arm called 'baseline', which all others are compared with"
        yield arms.place.problem("arms", message)


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


def _search_problems(label: str, node: Node, examples: Node) -> Iterator[Problem]:
    for name in ("search", "validation"):
        stated = examples.child(name)
        if isinstance(examples.value, dict) and (stated is None or not stated.value):
            message = f"needs `examples.{name}`, apart from the test examples"
            yield node.place.problem(f"attacks.{label}", message)
