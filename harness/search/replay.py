"""Score again what other cells found: what attacks that replay have in common."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.api import (
    Adversarial,
    Attack,
    AttackLabel,
    Budget,
    CellKey,
    Options,
    Peers,
    Scene,
)
from harness.base import CellError, unknown_name

if TYPE_CHECKING:
    from typing import Any

    from harness.api import AttackContext
    from harness.data import Example, ExampleSets
    from harness.records import SampleRow
    from harness.subject import Subject


class ReplayOptions(Options):
    """What is replayed."""

    of: AttackLabel | list[AttackLabel] | None = None
    """The attacks to replay, by label; by default all that are no controls."""


class Replay(Attack[ReplayOptions]):
    """Scores on this subject what the cells that it `reads` found."""

    Options = ReplayOptions
    controls = ()
    replays = True

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        sources = self.reads(context.peers.scene) if context.peers else ()
        yield from replay(subject, examples.test, context, sources)

    def budget(self, examples: int) -> Budget:
        """Return nothing: it searches for nothing, and scores what is there."""
        return Budget(forward=0, backward=0)


def as_labels(of: str | Sequence[str]) -> tuple[str, ...]:
    """Return the labels that an option names, one or several."""
    return (of,) if isinstance(of, str) else tuple(of)


def label_faults(
    attack: Attack[Any], labels: Iterable[str], scene: Scene
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the labels that the option `of` names."""
    for label in labels:
        if label not in scene.attacks:
            yield "of", unknown_name("attack", label, scene.attacks)
        elif scene.attacks[label].replays:
            yield "of", f"{label!r} replays attacks itself; name those"


def replay(
    subject: Subject,
    examples: Sequence[Example],
    context: AttackContext,
    sources: Sequence[CellKey],
) -> Iterator[Adversarial]:
    """Yield, for each example, the prompt of highest loss among those of `sources`.

    The trace has the exact dL of each source on this subject, in nats/token, null where
    it is not finite and where the source ended in an error. An example for which every
    source did is left out.
    """
    if context.peers is None or not sources:
        raise CellError("there are no other cells to replay")
    found = {key: _by_example(context.peers, key) for key in sources}
    for example in examples:
        rows = {key: found[key].get(example.id) for key in sources}
        for key, row in rows.items():
            if row is None:
                where = f"{key.attack} on {key.arm}"
                raise CellError(f"{where} has no row for {example.id}")
        prompts = {key: row.adversarial_prompt_ids for key, row in rows.items() if row}
        if any(prompts.values()):
            yield _best(subject, example, prompts)


def _by_example(peers: Peers, key: CellKey) -> dict[str, SampleRow]:
    return {row.example_id: row for row in peers.rows(*key)}


def _best(
    subject: Subject, example: Example, prompts: Mapping[CellKey, list[int] | None]
) -> Adversarial:
    """Return the prompt of highest loss among those of sources, of equals the first."""
    import numpy as np

    clean = np.asarray(example.prompt_ids)
    given = {key: np.array(x, dtype=np.int64) for key, x in prompts.items() if x}
    distinct = {ids.tobytes(): ids for ids in (clean, *given.values())}
    losses = subject.exact_losses([*distinct.values()], example.reference_ids)
    known = dict(zip(distinct, losses.tolist(), strict=True))
    found = {key: known[ids.tobytes()] for key, ids in given.items()}
    trace = [
        {
            "source": key.arm,
            "attack": key.attack,
            "seed": key.seed,
            "loss": _finite(found.get(key, math.nan)),
            "delta_loss": _finite(found.get(key, math.nan) - known[clean.tobytes()]),
        }
        for key in prompts
    ]
    best = max(given, key=lambda key: np.nan_to_num(found[key], nan=-np.inf))
    return Adversarial(example.id, given[best], trace)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
