"""Score again what other cells found: what attacks that replay have in common."""

from __future__ import annotations

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

    The trace has the exact dL of each source on this subject, in nats/token: 0 where
    the source ended in an error, since it has no prompt but the clean one.
    """
    if context.peers is None or not sources:
        raise CellError("there are no other cells to replay")
    found = {key: _by_example(context.peers, key) for key in sources}
    for example in examples:
        rows = {key: found[key].get(example.id) for key in sources}
        yield _best(subject, example, rows)


def _by_example(peers: Peers, key: CellKey) -> dict[str, SampleRow]:
    return {row.example_id: row for row in peers.rows(*key)}


def _best(
    subject: Subject, example: Example, rows: Mapping[CellKey, SampleRow | None]
) -> Adversarial:
    import numpy as np

    prompts = [np.asarray(example.prompt_ids)]
    for key, row in rows.items():
        if row is None:
            raise CellError(f"{key.attack} on {key.arm} has no row for {example.id}")
        ids = row.adversarial_prompt_ids
        prompts.append(prompts[0] if ids is None else np.array(ids, dtype=np.int64))
    distinct = {prompt.tobytes(): prompt for prompt in prompts}
    losses = subject.exact_losses([*distinct.values()], example.reference_ids)
    known = dict(zip(distinct, losses.tolist(), strict=True))
    clean, *others = (known[prompt.tobytes()] for prompt in prompts)
    trace = [
        {
            "source": key.arm,
            "attack": key.attack,
            "seed": key.seed,
            "loss": loss,
            "delta_loss": loss - clean,
        }
        for key, loss in zip(rows, others, strict=True)
    ]
    best = int(np.argmax(np.nan_to_num(others, nan=-np.inf)))  # ties: the first
    return Adversarial(example.id, prompts[1 + best], trace)
