"""Search one trigger for all prompts.

One trigger is written before every prompt. It is searched on one set of prompts, the
best of several starts is chosen on a second, and a third says what it is worth
[Wallace et al. 2019].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base import CellError
from harness.search.course import Course
from harness.search.guide import Spared
from harness.subject import Ask

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.api import AttackContext
    from harness.base import Ids
    from harness.data import Example
    from harness.subject import Subject

Trigger = tuple[int, ...]

NEAR = 4
"""How many tokens around a trigger say whether a text can have it there."""
ENDS = 64
"""How many last tokens are drawn for a start, of which the one that fits best is used:
few tokens can stand right before the first word of a text."""
LOOKED_AT = 8
"""How many times as many tokens are looked at where texts can have only some."""


def with_trigger(example: Example, trigger: Sequence[int]) -> Ids:
    """Return the prompt with a trigger before it, after what must stay first."""
    first, rest = np.split(np.asarray(example.prompt_ids), [example.protected])
    return np.concatenate([first, np.array(trigger, dtype=np.int64), rest])


def with_triggers(
    subject: Subject, examples: Sequence[Example], triggers: Iterable[Sequence[int]]
) -> list[Ids]:
    """Return the prompts with each trigger before them, trigger by trigger.

    Where prompts have to be texts, one that no text gives stays without its trigger.
    """
    pairs = [(example, trigger) for trigger in triggers for example in examples]
    prompts = [with_trigger(example, trigger) for example, trigger in pairs]
    if not subject.vocabulary.rules.reachable_only:
        return prompts
    return [
        prompt if is_text else example.prompt_ids
        for (example, _), prompt, is_text in zip(
            pairs, prompts, subject.reachable(prompts), strict=True
        )
    ]


@dataclass(frozen=True)
class Batch:
    """Prompts that a trigger is scored on, all together.

    A trigger counts before those prompts alone where a text can have it, if it has to.
    """

    subject: Subject
    examples: Sequence[Example]
    _known: dict[Trigger, list[Ids]] = field(default_factory=dict)

    def losses(self, triggers: Sequence[Trigger]) -> NDArray[np.float64]:
        """Return the mean loss [T] over the examples, in nats/token.

        In so many parts that a device scores one while the next is looked at.
        """
        some = -(-len(triggers) // self.subject.lanes.ahead)
        fetches = []
        for first in range(0, len(triggers), some):
            pairs = zip(*self.inputs(triggers[first : first + some]), strict=True)
            fetches.append(self.subject.launched(Ask.LOSSES, list(pairs)))
        losses = np.concatenate([fetch() for fetch in fetches])
        means: NDArray[np.float64]
        means = losses.reshape(len(triggers), len(self.examples)).mean(axis=1)
        return means

    def top(
        self, triggers: Sequence[Trigger], losses: NDArray[np.float64], k: int
    ) -> list[int]:
        """Return the indices of the `k` highest losses, best first.

        As `Subject.top` does: where rounding could decide, triggers are scored again.
        """
        return self.subject.top(*self.inputs(triggers), losses, k)

    def gradient(self, trigger: Trigger) -> Tensor:
        """Return the mean over the examples of dL/d(embedding) [m, d] of a trigger."""
        import torch

        gradients = self.subject.gradients(*self.inputs([trigger]))
        own = [
            gradient[example.protected : example.protected + len(trigger)]
            for gradient, example in zip(gradients, self.examples, strict=True)
        ]
        with self.subject.aside():
            return torch.stack(own).mean(dim=0)

    def inputs(self, triggers: Iterable[Trigger]) -> tuple[list[Ids], list[Ids]]:
        """Return the prompts with each trigger, trigger by trigger, and references."""
        triggers, each = list(triggers), len(self.examples)
        new = [x for x in dict.fromkeys(triggers) if x not in self._known]
        prompts = with_triggers(self.subject, self.examples, new)
        for i, trigger in enumerate(new):
            self._known[trigger] = prompts[i * each : (i + 1) * each]
        references = [example.reference_ids for example in self.examples]
        written = [prompt for trigger in triggers for prompt in self._known[trigger]]
        return written, references * len(triggers)

    def fit(self, triggers: Sequence[Trigger]) -> NDArray[np.int64]:
        """Return before how many of the examples [T] a text seems to have a trigger.

        By the words that a trigger is in or ends, which is quick; all of them where
        prompts need not be texts.
        """
        vocabulary = self.subject.vocabulary
        if not vocabulary.rules.reachable_only:
            return np.full(len(triggers), len(self.examples))
        found = np.zeros(len(triggers), dtype=np.int64)
        for before, after in self._around:
            shape = len(before), len(triggers)
            parts = (
                np.broadcast_to(before[:, None], (*shape, before.shape[1])),
                np.broadcast_to(triggers, (*shape, len(triggers[0]))),
                np.broadcast_to(after[:, None], (*shape, after.shape[1])),
            )
            rows = np.concatenate(parts, axis=2)
            first, flat = before.shape[1], rows.reshape(-1, rows.shape[2])
            new = np.zeros(flat.shape, dtype=np.bool_)
            new[:, first : first + len(triggers[0])] = True
            broken = vocabulary.broken_words(flat, new).any(axis=1)
            found += np.logical_not(broken).reshape(shape).sum(axis=0)
        return found

    @cached_property
    def _around(self) -> list[tuple[Ids, Ids]]:
        """The tokens [G, b] before and [G, a] after a trigger, the nearest of each.

        For each group of examples that have as many.
        """
        groups: dict[tuple[int, int], list[tuple[Ids, Ids]]] = {}
        for example in self.examples:
            before, after = np.split(
                np.asarray(example.prompt_ids), [example.protected]
            )
            before, after = before[-NEAR:], after[:NEAR]
            groups.setdefault((len(before), len(after)), []).append((before, after))
        return [
            (np.stack([b for b, _ in group]), np.stack([a for _, a in group]))
            for group in groups.values()
        ]


@dataclass(frozen=True)
class Found:
    """A trigger and how it came about."""

    trigger: Trigger
    trace: tuple[Mapping[str, Any], ...]
    held: Mapping[float, Trigger] = field(default_factory=dict)
    """What would have been found with less, by the share of the search."""


@dataclass(frozen=True)
class Climb:
    """What became of one start."""

    course: tuple[Trigger, ...]
    """The trigger at the start and after each sweep."""
    trace: tuple[Mapping[str, Any], ...]


@dataclass
class TriggerSearch:
    """Looks for the trigger that raises the mean loss most.

    Blindly, for the random control, the tokens tried at a place are uniform draws, as
    many more of them as its gradients would have cost.
    """

    subject: Subject
    search: Sequence[Example]
    """What the trigger is searched on."""
    validation: Sequence[Example]
    """What the best start is chosen on."""
    context: AttackContext
    tokens: int
    """Length of the trigger."""
    starts: int
    """Random triggers to start from, at least."""
    sweeps: int
    """Sweeps over all batches and places from one start, at most."""
    batch_prompts: int
    """Search examples that share a loss; a sweep goes over all of them."""
    candidates: int
    """Tokens tried at each place, besides the one that is there."""
    scaled: bool = True
    """Whether gains are divided by the squared distance of tokens."""
    beam_width: int = 1
    """Triggers kept from place to place."""

    replicate: int = 0
    """Which of several independent searches under the same seed this is."""

    def __post_init__(self) -> None:
        self._spared = Spared(self.context)
        self._key = ("replicate", self.replicate) if self.replicate else ()

    def run(self) -> Found:
        """Return the best trigger on the validation prompts.

        A start from which a whole sweep brings nothing is over; the sweeps it leaves go
        to further starts, so that the whole costs `starts * sweeps` sweeps. At each of
        the context's checkpoints stands what so many sweeps would have found.
        """
        if not self.search or not self.validation:
            raise CellError("a universal trigger needs search and validation examples")
        if self.context.blind == "text":
            return self._best_text()
        climbs: list[Climb] = []
        total = left = self.starts * self.sweeps
        while left > 0:
            start = len(climbs)
            rng = self.context.rng(*self._key, "start", start)
            climbs.append(self._climb(start, rng, min(left, self.sweeps)))
            left -= len(climbs[-1].course) - 1
        course = Course[Trigger](self.context.checkpoints, total)
        known: dict[Trigger, float] = {}
        best, trigger = self._best_of(_ends(climbs, total), known)
        for share in course.shares:
            ends = _ends(climbs, course.within(share))
            course.held[share] = self._best_of(ends, known)[1]
        return Found(trigger, climbs[best].trace, course.held)

    def _best_of(
        self, triggers: Sequence[Trigger], known: dict[Trigger, float]
    ) -> tuple[int, Trigger]:
        """Return the index of the best trigger on the validation prompts, and itself.

        `known` are mean losses there; those that are new come in.
        """
        batch = Batch(self.subject, self.validation)
        new = [x for x in dict.fromkeys(triggers) if x not in known]
        if new:
            known.update(zip(new, batch.losses(new).tolist(), strict=True))
        losses = np.array([known[trigger] for trigger in triggers])
        best = batch.top(triggers, losses, 1)[0]
        return best, triggers[best]

    def _best_text(self) -> Found:
        """Return the best of so many pieces of documents as the search would pay for.

        Pieces of the search documents come first, then those of the validation
        documents, each in random order and none twice.
        """
        pools = (
            _pieces(self.search, self.tokens),
            _pieces(self.validation, self.tokens),
        )
        rng = self.context.rng(*self._key, "text")
        drawn = [pool[i] for pool in pools for i in rng.permutation(len(pool))]
        batch = Batch(self.subject, self.validation)
        if drawn:
            fit = batch.fit([trigger for trigger, _, _ in drawn])
            drawn = [piece for piece, ok in zip(drawn, fit, strict=True) if ok] or drawn
        course = Course[Trigger](
            self.context.checkpoints,
            steps=max(1, int(self._passes() / len(self.validation))),
        )
        drawn = drawn[: course.steps]
        if not drawn:
            raise CellError("no document is as long as the trigger")
        triggers = [trigger for trigger, _, _ in drawn]
        losses = batch.losses(triggers)
        for share in course.shares:
            seen = max(1, course.within(share))
            first = batch.top(triggers[:seen], losses[:seen], 1)[0]
            course.held[share] = triggers[first]
        best = batch.top(triggers, losses, 1)[0]
        trigger, example, start = drawn[best]
        step = {
            "step": 1,
            "loss": float(losses[best]),
            "drawn": len(drawn),
            "document": example.document_id,
            "start": start,
        }
        return Found(trigger, (step,), course.held)

    def _passes(self) -> float:
        """Return how many forward passes cost as much as the whole search may."""
        [[prompt], [reference]] = Batch(self.subject, self.search[:1]).inputs(
            [(0,) * self.tokens]
        )
        forward, backward = self.subject.pass_flops(len(prompt), len(reference))
        gradients = self.tokens * self.context.gradients * (1 + backward / forward)
        tried = 1 + self.candidates * (1 + (self.tokens - 1) * self.beam_width)
        sweep = len(self.search) * (tried + gradients) + len(self.validation)
        return self.starts * self.sweeps * sweep

    def _climb(self, start: int, rng: np.random.Generator, sweeps: int) -> Climb:
        """Sweep until nothing improves."""
        trigger = self._start(rng)
        trace: list[Mapping[str, Any]] = []
        course = [trigger]
        for sweep in range(1, sweeps + 1):
            before = trigger
            for batch in self._batches():
                climbed, loss = self._sweep(batch, trigger, rng)
                trace += [
                    {"start": start, "sweep": sweep, "loss": loss, **change}
                    for change in _changes(trigger, climbed)
                ]
                trigger = climbed
            course.append(trigger)
            if trigger == before:
                break
        steps = ({"step": i, **step} for i, step in enumerate(trace, 1))
        return Climb(tuple(course), tuple(steps))

    def _start(self, rng: np.random.Generator) -> Trigger:
        """Draw a trigger; where prompts have to be texts, one that most can have."""
        vocabulary = self.subject.vocabulary
        allowed = vocabulary.allowed
        if not vocabulary.rules.reachable_only:
            return _as_trigger(rng.choice(allowed, self.tokens))
        words = rng.choice(vocabulary.words(allowed), self.tokens)
        ends = [words[-1], *rng.choice(allowed, ENDS)]
        triggers = [_as_trigger([*words[:-1], end]) for end in ends]
        fit = Batch(self.subject, self.search).fit(triggers)
        return triggers[int(fit.argmax())]

    def _batches(self) -> list[Batch]:
        size = self.batch_prompts
        starts = range(0, len(self.search), size)
        return [Batch(self.subject, self.search[i : i + size]) for i in starts]

    def _sweep(
        self, batch: Batch, trigger: Trigger, rng: np.random.Generator
    ) -> tuple[Trigger, float]:
        """Improve the places from left to right, with a beam on the true loss."""
        known = {trigger: float(batch.losses([trigger])[0])}
        beam = [trigger]
        for place in range(self.tokens):
            tokens = self._tokens(batch, beam, place, rng)
            beam = self._extend(batch, beam, place, tokens, known)
        return beam[0], known[beam[0]]

    def _tokens(
        self,
        batch: Batch,
        beam: Sequence[Trigger],
        place: int,
        rng: np.random.Generator,
    ) -> list[int]:
        """Return the tokens to try at a place of each trigger of a beam.

        Those of highest gain at the best trigger, or draws.
        """
        trigger = beam[0]
        if self.context.blind:
            example = batch.examples[0]
            length = len(example.prompt_ids) + len(trigger)
            count = self.candidates + self._spared.instead(
                self.subject, length, example.reference_ids, passes=len(beam)
            )
            allowed = self.subject.vocabulary.allowed
            others = allowed[allowed != trigger[place]]
            looked = min(self._looked(count), len(others))
            drawn = rng.choice(others, looked, replace=False)
            return _fitting(batch, trigger, place, drawn, count)
        gradient = batch.gradient(trigger)[place][None]
        here = np.array([trigger[place]])
        [gains] = self.subject.gains(here, gradient, scaled=self.scaled)
        looked = min(self._looked(self.candidates), len(gains))
        values, tokens = gains.topk(looked)
        best = tokens[values > -np.inf].cpu().numpy()
        return _fitting(batch, trigger, place, best, self.candidates)

    def _looked(self, count: int) -> int:
        """Return how many tokens are looked at to find so many that texts can have."""
        only = self.subject.vocabulary.rules.reachable_only
        return count * LOOKED_AT if only else count

    def _extend(
        self,
        batch: Batch,
        beam: Sequence[Trigger],
        place: int,
        tokens: Iterable[int],
        known: dict[Trigger, float],
    ) -> list[Trigger]:
        """Write each token at a place of each trigger; keep the best, and ties first.

        The triggers themselves stay candidates: their token is one of the choices.
        """
        written = {_write(trigger, place, t) for t in tokens for trigger in beam}
        new = sorted(written.difference(known))
        if new:
            known.update(zip(new, batch.losses(new).tolist(), strict=True))
        tried = [*beam, *sorted(written.difference(beam))]
        losses = np.array([known[trigger] for trigger in tried])
        return [tried[i] for i in batch.top(tried, losses, self.beam_width)]


def _ends(climbs: Iterable[Climb], sweeps: int) -> list[Trigger]:
    """Return where each start leads in so many sweeps, all starts together."""
    found: list[Trigger] = []
    for climb in climbs:
        made = min(sweeps, len(climb.course) - 1)
        if made or not found:
            found.append(climb.course[made])
        sweeps -= made
    return found


def _fitting(
    batch: Batch, trigger: Trigger, place: int, tokens: Ids, count: int
) -> list[int]:
    """Return the first `count` tokens with which a trigger fits no fewer prompts."""
    written = [_write(trigger, place, token) for token in tokens]
    if not written:
        return []
    least = max(1, batch.fit([trigger])[0])
    found = tokens[batch.fit(written) >= least]
    return [int(token) for token in found[:count]]


def _as_trigger(tokens: Iterable[int]) -> Trigger:
    return tuple(int(token) for token in tokens)


def _write(trigger: Trigger, place: int, token: int) -> Trigger:
    return (*trigger[:place], int(token), *trigger[place + 1 :])


def _changes(before: Trigger, after: Trigger) -> list[dict[str, int]]:
    """Return the places where two triggers differ, and what stands there now."""
    return [
        {"position": place, "token": new}
        for place, (old, new) in enumerate(zip(before, after, strict=True))
        if old != new
    ]


def _pieces(
    examples: Sequence[Example], tokens: int
) -> list[tuple[Trigger, Example, int]]:
    """Return all different pieces of the documents, special tokens left out."""
    pieces: dict[Trigger, tuple[Trigger, Example, int]] = {}
    for example in examples:
        own = [example.prompt_ids[example.protected :], example.reference_ids]
        ids = [int(token) for token in np.concatenate(own)]
        for start in range(len(ids) - tokens + 1):
            piece = tuple(ids[start : start + tokens])
            pieces.setdefault(piece, (piece, example, start))
    return list(pieces.values())
