"""What the rule of verdicts knows about a run: facts, without files and without words.

Everything that a verdict rests on is here, so that a run, a simulation and a test build
the same thing and go through the same `judge`. Arrays of losses may have leading axes:
a batch of simulated runs that differ in their losses alone. S counts seeds, n examples;
NaN stands for an error, never for harmlessness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.records import DiagnosticId, Margin
from harness.suite import CHECKPOINTS, DOUBLED

Floats = NDArray[np.float64]

SHARES: tuple[float, ...] = (*CHECKPOINTS, DOUBLED)
"""Multiples of an attack's stated budget at which its prompt was kept and re-scored."""

Role = Literal["main", "control", "transfer", "idle", "unbounded", "token-level"]
"""Why a suite has an attack. ``main``: it searches, and results are about it.
``control``: it accompanies the attack that it is `of`. ``transfer`` replays what was
found on other arms; ``idle`` is what else searches nothing. ``unbounded`` and
``token-level`` are an attack with every token free, or beyond what texts encode to."""
ArmRole = Literal["treatment", "replica", "derived"]
"""A replica repeats another arm and is judged like a treatment; what is derived from
another arm's trained subject serves to judge, and is not judged itself."""
PlantKind = Literal["token", "ffn", "pair", "hidden"]


@dataclass(frozen=True)
class Attack:
    """An attack of the suite; its cells are those of the arms."""

    label: str
    role: Role = "main"
    gradients: bool = False
    """Whether it makes backward passes."""
    limited: bool = True
    """Whether it can be freed of a limit, so that every token may change."""
    universal: bool = False
    """Whether one search serves all examples, so that the search is the unit."""
    of: str | None = None
    """The attack that it accompanies, or is a form of."""
    shows: str | None = None
    """Of a control, what beating it shows: ``search``, ``gradient`` or ``text``."""


@dataclass(frozen=True, eq=False)
class Cell:
    """What an attack did to an arm, under each of the arm's seeds."""

    delta: Floats
    """dL [..., S, n, 4] in nats/token, at each of `SHARES`; NaN for an error. Seeds
    without a complete cell are NaN throughout, and not `there`. Of an attack with every
    token free, n may be fewer: the first examples."""
    there: NDArray[np.bool_]
    """[S]: under which seeds the cell is complete."""
    checkpoints: bool = True
    """Whether the first three columns were measured; else they repeat the last."""
    replicates: Floats | None = None
    """dL [..., S, R, n] of a universal attack's other searches at the full budget."""
    flops: Floats | None = None
    """FLOPs on an example [4] at each of `SHARES`; None where they are not known."""
    sources: Mapping[str, Floats] = field(default_factory=dict)
    """Of a transfer: dL [..., S, n] of what was found on each other arm."""


@dataclass(frozen=True, eq=False)
class Examined:
    """What a question to a subject measured, example by example."""

    keys: Sequence[str]
    """Identify what was examined [k]: an example, and at which of its prompts."""
    units: Sequence[str]
    """The unit [k] that each belongs to."""
    values: Floats
    """[S, k]; NaN where it is not finite."""
    fault: str | None = None
    """What the subject alone fails by, whatever other arms do."""


@dataclass(frozen=True)
class Certificate:
    """What was proved of an arm's weights under one seed."""

    failed: bool
    """Whether a check of what the arm promises failed."""
    examined: int
    """How many matrices were examined."""
    expected: int
    """How many the scope of the arm's constraint names."""


@dataclass(frozen=True, eq=False)
class Plant:
    """A copy of an arm with a planted weakness, and what attacks found of it."""

    kind: PlantKind
    strength: float
    """By how much the weakness raises dL above the arm's own under attack, in nats."""
    units: Sequence[str]
    """The unit [k] of each example."""
    own: Floats
    """The arm's own dL under attack [k]."""
    planted: Floats
    """dL [k] of its trigger, at the best of a few places; NaN where it is not known."""
    reached: Mapping[str, Floats]
    """dL [k] that each attack reaches on the copy; NaN for an error."""


@dataclass(frozen=True, eq=False)
class Matched:
    """A match: one of two arms, made to have the clean loss of the other."""

    arm: str
    """The label of the match."""
    stands_for: Literal["reference", "arm"]
    """Which of the two it was made from, and takes the place of."""
    units: Sequence[str]
    """Documents [k] apart from the test examples."""
    arm_loss: Floats
    """Clean loss [S, k] of the other arm, in nats/token, by the match's seeds."""
    match_loss: Floats
    """Clean loss [S, k] of the match."""


@dataclass(frozen=True)
class Replayed:
    """What a fresh process made of a complete cell's rows."""

    cell: str
    """The cell's id."""
    largest: float | None = None
    """The largest distance from a recorded loss, in nats/token."""
    fault: str | None = None
    """Why nothing was compared: missing, stale, or an error."""


@dataclass(frozen=True, eq=False)
class Arm:
    """A model under one arm: its losses, and what is known of its variants."""

    model: str
    label: str
    reference: str | None
    """The arm that it is held against; None of the baseline arm."""
    seeds: tuple[int, ...]
    """S of them; all arrays [S, ...] of the arm have this order."""
    clean: Floats
    """Clean loss [..., S, n] of each test example, in nats/token; NaN for an error."""
    cells: Mapping[str, Cell] = field(default_factory=dict)
    """By the attack's label."""
    role: ArmRole = "treatment"
    certificates: Sequence[Certificate] = ()
    examined: Mapping[DiagnosticId, Examined] = field(default_factory=dict)
    """Determinism, gradient health, truth and fidelity, where they were measured."""
    plants: Sequence[Plant] = ()
    matches: Sequence[Matched] = ()
    """Those of the arm or its reference arm whose clean losses were measured."""
    unmatched: str | None = None
    """Why there is no match, where one was tried."""
    replayed: Sequence[Replayed] = ()
    """One for each complete cell that a verdict on the arm rests on."""
    holes: Sequence[str] = ()
    """Planned units of the arm, of its reference arm and of what is made from either
    that are not complete, each named with its state."""


@dataclass(frozen=True, eq=False)
class Model:
    """A model of the suite, and the examples as it reads them."""

    label: str
    vocabulary: int
    """How many tokens it knows: full harm is judged by it."""
    units: Sequence[str]
    """The unit [n] of each test example: the cluster of its document where the corpus
    states one, else the document."""


@dataclass(frozen=True, eq=False)
class Findings:
    """All that `judge` knows about a run."""

    suite: str
    diagnostics: Literal["standard", "full", "none"]
    margin: Margin
    """How small a difference counts as none."""
    models: Mapping[str, Model]
    attacks: Mapping[str, Attack]
    """By label, in the suite's order."""
    arms: Sequence[Arm]
    """In the order of the report, matches, plants and replicas included."""
    threshold: float = 0.15
    """An attack succeeds on an example where exp(dL) > 1 + threshold: shown, never
    deciding."""
    margin_change: str | None = None
    """That records state another margin, in a sentence."""

    def arm(self, model: str, label: str) -> Arm:
        """Return an arm of a model, by their labels."""
        (found,) = [x for x in self.arms if (x.model, x.label) == (model, label)]
        return found

    def of(self, role: Role) -> list[Attack]:
        """Return the attacks of a role, in the suite's order."""
        return [attack for attack in self.attacks.values() if attack.role == role]
