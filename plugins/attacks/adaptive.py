"""Adaptive: an attack steered by the gradients of other arms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness import hookimpl
from harness.api import (
    Adversarial,
    Attack,
    AttackContext,
    AttackLabel,
    Blind,
    Budget,
    Options,
    Paper,
    Peers,
    Scene,
)
from harness.base import CellError, Ids, unknown_name
from harness.data import ExampleSets
from harness.subject import Subject

if TYPE_CHECKING:
    from torch import Tensor

AVERAGE = "average"


class AdaptiveOptions(Options):
    """Options of adaptive attacks."""

    of: AttackLabel
    """The attack to steer, by its label: its plugin and its options are used."""
    through: str = "baseline"
    """Whose gradients steer it: an arm's, or `average` for the mean over all arms."""
    twice: bool = False
    """Whether the attack that it steers gets twice its stated budget."""


class Adaptive(Attack[AdaptiveOptions]):
    """Runs another attack on this arm with gradients taken from other arms.

    A defence that only hides its gradient is open to those of a model that does not:
    candidates are proposed through the other arm, verified and chosen on this one. The
    ledger counts the passes through all of them. On the arm whose gradients they are,
    it is the attack itself.
    """

    name = "adaptive"
    papers = (
        Paper(
            "Athalye et al. 2018",
            "Obfuscated Gradients Give a False Sense of Security",
            "https://arxiv.org/abs/1802.00420",
        ),
        Paper(
            "Tramer et al. 2020",
            "On Adaptive Attacks to Adversarial Example Defenses",
            "https://arxiv.org/abs/2002.08347",
        ),
    )
    example = {"of": "hotflip"}
    Options = AdaptiveOptions
    needs_peers = True

    _steered: Attack[Any] | None = None
    _arms: tuple[str, ...] = ()
    """Whose gradients are averaged."""

    @property
    def blinds(self) -> tuple[Blind, ...]:  # type: ignore[override]
        """Return how the attack that it steers can be run as its own control."""
        return self._steered.blinds if self._steered else ()

    @property
    def universal(self) -> bool:  # type: ignore[override]
        """Return whether one search of what it steers serves all examples."""
        return self._steered is not None and self._steered.universal

    def placed(self, scene: Scene) -> Adaptive:
        """Return the attack with the one that it steers."""
        own = Adaptive(self.options)
        own._steered = scene.attacks[self.options.of].placed(scene)
        if self.options.twice:
            doubled = own._steered.doubled()
            if doubled is None:
                raise CellError(f"{self.options.of} cannot get twice its budget")
            own._steered = type(own._steered)(doubled).placed(scene)
        through = self.options.through
        own._arms = scene.arms if through == AVERAGE else (through,)
        return own

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        if self._steered is None or context.peers is None:
            raise CellError("adaptive needs a suite with other arms around it")
        if not context.blind:
            steering = _Steering(context.peers, self._arms)
            subject = subject.with_gradients_from(steering)
        own = replace(
            context, budget=None, matched=None, peers=None, gradients=len(self._arms)
        )
        yield from self._steered.run(subject, examples, own)

    def budget(self, examples: int) -> Budget:
        """Return the budget of what it steers, each gradient taken on every arm."""
        if self._steered is None:
            raise CellError("adaptive has a budget only where a suite places it")
        budget = self._steered.budget(examples)
        more = budget.backward * (len(self._arms) - 1)
        return replace(
            budget, forward=budget.forward + more, backward=budget.backward + more
        )

    def doubled(self) -> AdaptiveOptions | None:
        """Return options with twice the budget, where what it steers can have it."""
        if self._steered is None or self.options.twice:
            return None
        if self._steered.doubled() is None:
            return None
        return self.options.model_copy(update={"twice": True})

    def faults(self, scene: Scene) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with its options in a suite."""
        of, through = self.options.of, self.options.through
        if of not in scene.attacks:
            yield "of", unknown_name("attack", of, scene.attacks)
        elif of not in scene.main:
            yield "of", f"{of!r} is a control; name an attack"
        elif scene.attacks[of].replays or scene.attacks[of].needs_peers:
            yield (
                "of",
                f"{of!r} is made of other attacks; name one that takes gradients",
            )
        elif not scene.attacks[of].budget(1).backward:
            yield "of", f"{of!r} takes no gradients, so there is nothing to steer"
        if through != AVERAGE and through not in scene.arms:
            yield "through", unknown_name("arm", through, [*scene.arms, AVERAGE])

    def borrows(self, scene: Scene) -> Sequence[str]:
        """Return the arms whose gradients it uses, its own left out."""
        through = self.options.through
        arms = scene.arms if through == AVERAGE else (through,)
        return [arm for arm in arms if arm != scene.arm]


class _Steering:
    """Computes the mean of the gradients of some arms."""

    def __init__(self, peers: Peers, arms: Sequence[str]) -> None:
        self._peers, self._arms = peers, arms

    def __call__(
        self, prompts: Sequence[Ids], references: Sequence[Ids]
    ) -> list[Tensor]:
        import torch

        found = [
            self._peers.subject(arm).gradients(prompts, references)
            for arm in self._arms
        ]
        return [torch.stack(one).mean(dim=0) for one in zip(*found, strict=True)]


@hookimpl
def register_attacks() -> list[type[Adaptive]]:
    """Offer the attack."""
    return [Adaptive]
