"""An experiment: a valid suite, and its plugins built with their options."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from harness.api import (
    CORPUS,
    Attack,
    Constraint,
    Metric,
    ModelAdapter,
    Plugin,
    Registry,
    Scene,
)
from harness.base import Problem
from harness.subject import TokenRules
from harness.suite.marks import named_by
from harness.suite.model import PLUGIN_SECTIONS, Suite
from harness.suite.unloaded import ReadersRegistry
from harness.suite.yaml import Layer

T = TypeVar("T")

DOUBLED = 2.0
"""Which multiple of its stated budget an attack gets where verdicts are asked for."""
CHECKPOINTS: tuple[float, ...] = (0.25, 0.5, 1.0)
"""The multiples at which it then keeps what it would have returned."""


@dataclass(frozen=True)
class Placed:
    """An attack as it runs in a cell."""

    attack: Attack[Any]
    matched: Attack[Any] | None
    """Of a control: the attack that it accompanies, as that runs."""
    share: float = 1.0
    """Which multiple of the stated budget it gets; of a control, its attack's."""

    @property
    def checkpoints(self) -> tuple[float, ...]:
        """The shares of what it gets at which it keeps what it would have returned."""
        return () if self.share == 1 else tuple(x / self.share for x in CHECKPOINTS)


@dataclass(frozen=True)
class Experiment:
    """A valid suite, and its plugins built with their options."""

    suite: Suite
    source: Path
    """The suite file."""
    profile: str | None
    """The profile that was chosen."""
    registry: Registry
    models: dict[str, ModelAdapter[Any]]
    arms: dict[str, Constraint[Any]]
    metrics: dict[str, Metric[Any]]
    attacks: dict[str, Attack[Any]]
    adversaries: dict[str, Attack[Any]]
    """What the arms are trained against, by their labels: those that are."""
    layer: Layer = field(repr=False, compare=False)
    """Where every value of the suite was stated, for later messages."""
    _known: dict[Hashable, Any] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def run_dir(self) -> Path:
        """Where it runs unless another folder is given: one called like the suite."""
        return Path("runs") / self.suite.name

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returned when `key` was first asked for.

        Thousands of cells are made of a few arms, attacks and seeds. Nothing of it is
        to be changed.
        """
        if key not in self._known:
            self._known[key] = make()
        found: T = self._known[key]
        return found

    @property
    def resolved(self) -> bool:
        """Whether every fingerprint is known that ids depend on."""
        models = [model.fingerprint for model in self.suite.models.values()]
        texts = [self.suite.corpora[label].fingerprint for label in self.used_corpora]
        return None not in (*models, *texts)

    @property
    def warnings(self) -> list[Problem]:
        """What is no error, and has to be known of what the suite is read for."""
        return [x for x in self.layer.problems if x.severity == "warning"]

    @property
    def unjudged(self) -> bool:
        """Whether stand-ins are among the plugins: then ids of units are not known."""
        return isinstance(self.registry, ReadersRegistry) and bool(self.registry.missed)

    @property
    def plugins(self) -> dict[str, Mapping[str, Plugin[Any]]]:
        """The plugins by section and label."""
        return {section: getattr(self, section) for section in PLUGIN_SECTIONS}

    @property
    def used_corpora(self) -> list[str]:
        """The corpora that something reads, in the suite's order."""
        used = set(self._used_corpora())
        return [label for label in self.suite.corpora if label in used]

    def scene(self, arm: str | None = None, seed: int | None = None) -> Scene:
        """Return what stands around the cells of an arm and a seed.

        By default of the first. Names are sorted, so that nothing depends on the order
        of the suite. Of arms that are no treatment there is only `arm` itself, and of
        others those that get this seed.
        """
        return self.once(("scene", arm, seed), lambda: self._scene(arm, seed))

    def _scene(self, arm: str | None, seed: int | None) -> Scene:
        suite, sections = self.suite, sorted(self.suite.arms.items())
        arms = [x for x, section in sections if section.is_treatment or x == arm]
        if seed is not None:
            arms = [x for x in arms if seed in self.seeds_of(x)]
        seeds = sorted(suite.seeds if arm is None else self.seeds_of(arm))
        return Scene(
            arm=arms[0] if arm is None else arm,
            seed=seeds[0] if seed is None else seed,
            arms=tuple(arms),
            gets={x: self.attacks_of(x) for x in arms},
            seeds=tuple(seeds),
            attacks=self.once("attacks", lambda: dict(sorted(self.attacks.items()))),
            main=self.once("main", lambda: tuple(sorted(suite.main_attacks))),
        )

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """Return the seeds that an arm gets, in the suite's order."""
        return self.once(("seeds", arm), lambda: tuple(self.suite.seeds_of(arm)))

    def attacks_of(self, arm: str) -> tuple[str, ...]:
        """Return the attacks that an arm gets, in the suite's order."""
        return self.once(("attacks", arm), lambda: tuple(self.suite.attacks_of(arm)))

    def searches(self, *arms: str) -> list[str]:
        """Return the main attacks that search by themselves, and that all arms get."""
        return [
            label
            for label in self.suite.main_attacks
            if not (self.attacks[label].replays or self.attacks[label].needs_peers)
            and all(label in self.suite.attacks_of(arm) for arm in arms)
        ]

    def rules_of(self, label: str) -> TokenRules:
        """Return the token rules that an attack keeps to."""
        if self.suite.attacks[label].role != "token-level":
            return self.suite.tokens
        return self.suite.tokens.model_copy(update={"reachable_only": False})

    def placed(self, label: str, scene: Scene) -> Placed:
        """Return an attack as it runs in a cell of a scene.

        Where verdicts are asked for, an attack gets twice its stated budget, if it has
        options for that, and so do its controls; but not without its limits, where it
        only has to work at all.
        """
        match = self.suite.attacks[label].match
        attack = self.attacks[label].placed(scene)
        stated = attack if match is None else self.attacks[match].placed(scene)
        if attack is self.attacks[label] and stated is self.attacks[match or label]:
            # It is the same in every cell.
            known = ("placed", label)
            return self.once(known, lambda: self._placed(label, attack, stated, scene))
        return self._placed(label, attack, stated, scene)

    def _placed(
        self, label: str, attack: Attack[Any], stated: Attack[Any], scene: Scene
    ) -> Placed:
        match, own, share = self.suite.attacks[label].match, stated, 1.0
        judged = self.suite.diagnostics != "none"
        if judged and not self.suite.is_free(label):
            options = stated.doubled()
            if options is not None:
                own, share = type(stated)(options).placed(scene), DOUBLED
        if match is None:
            return Placed(own, None, share)
        return Placed(attack, own, share)

    def _used_corpora(self) -> Iterator[str]:
        suite, recovery, examples = self.suite, self.suite.recovery, self.suite.examples
        arms_read_examples = any(arm.uses_examples for arm in self.arms.values())
        trained = any(arm.recovers for arm in suite.arms.values())
        if recovery and (trained or arms_read_examples):
            yield from filter(None, (recovery.corpus, recovery.validation))
        if examples and (suite.attacks or arms_read_examples):
            sets = examples.test, examples.search, examples.validation
            yield from (part.corpus for part in sets if part is not None)
        for plugins in self.plugins.values():
            for plugin in plugins.values():
                yield from named_by(plugin, CORPUS)
