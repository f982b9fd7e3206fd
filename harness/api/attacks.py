"""What an attack implements, and what it may use and spend."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from harness.api.plugin import OptionsT, Plugin
from harness.base import Ids
from harness.data import ExampleSets
from harness.records import SampleRow
from harness.subject import Subject


@dataclass(frozen=True)
class Budget:
    """What an attack may spend on one example, in passes over the whole input.

    `forward` counts forward passes of one sequence (prompt and reference), `backward`
    counts backward passes to the embedding output with frozen weights.
    """

    forward: int
    backward: int
    flips: int | None = None
    """How many positions may differ at the end; None where that is not the limit."""
    prepended: int = 0
    """How many tokens stand before the prompt in each pass, besides its own."""
    sweeps: float = 0.0
    """Besides, how many forward passes there are for each token of the vocabulary: a
    part of one where many examples share them."""


@dataclass(frozen=True)
class Adversarial:
    """What an attack made of one example."""

    example_id: str
    prompt_ids: Ids
    """The whole attacked prompt, a trigger included."""
    trace: Sequence[Mapping[str, Any]] = ()
    """Steps: ``step``, ``position``, ``token``, ``loss`` (nats/token) and more. Those
    that name positions and tokens are the changes that were kept, in order: they lead
    from the clean prompt to this one, and `harness validate` follows them. A step that
    goes on from an earlier one names it (``from``, 0 for the clean prompt)."""
    checkpoints: Mapping[float, Ids] = field(default_factory=dict)
    """The whole prompt that it would have returned, had it been stopped, by the share
    of its budget that was spent by then: those that `AttackContext.checkpoints` asks
    for."""
    replicates: Sequence[Ids] = ()
    """The whole prompts that further searches of a universal attack found."""


Shows = Literal["search", "gradient", "text", "transferability", "worst"]
"""What an attack's results are evidence of. Of a control: that the attack that beats it
searches better than chance (`search`), owes that to its gradient (`gradient`), or does
more than any text in front of a prompt (`text`). Of a replay: how far prompts carry to
other arms (`transferability`), or the worst of all attacks on each example (`worst`).
Full diagnostics add such a replay where a suite has none."""


Blind = Literal["uniform", "text"]
"""What stands in for what guides an attack, in a run of it that is a control: uniform
draws, or pieces of the corpus where it prepends a text."""


class CellKey(NamedTuple):
    """A cell of the suite, for the same model: the labels and the seed."""

    arm: str
    attack: str
    seed: int


@dataclass(frozen=True)
class Scene:
    """Where a cell stands in its suite: what there is besides it, for its model."""

    arm: str
    seed: int
    arms: tuple[str, ...]
    """Its own arm and all other treatments that get its seed, sorted: none that are
    derived from one, or that are one once more."""
    gets: Mapping[str, Sequence[str]]
    """The labels of the attacks that each of the arms gets."""
    seeds: tuple[int, ...]
    """The seeds that its arm gets, sorted."""
    attacks: Mapping[str, Attack[Any]]
    """All attacks of the suite by label, sorted."""
    main: tuple[str, ...]
    """The labels of the attacks that are no control and of no special role."""


class Peers(Protocol):
    """What a cell may use of the other cells and arms, for the same model."""

    @property
    def scene(self) -> Scene:
        """Where the cell stands in its suite."""

    @property
    def arms(self) -> Sequence[str]:
        """The arms of the scene."""

    def subject(self, arm: str) -> Subject:
        """Return the subject of an arm that `Attack.borrows`, with the cell's seed.

        It is loaded when it is first asked for, and freed when the cell ends. What it
        spends is in the cell's ledger.
        """

    def rows(self, arm: str, attack: str, seed: int) -> Sequence[SampleRow]:
        """Return the rows of a complete cell that `Attack.reads`."""


@dataclass(frozen=True)
class AttackContext:
    """What an attack may use besides the subject and the examples."""

    seed_key: str
    """Identifies the cell; randomness is keyed by it and the example's id."""
    budget: Budget | None = None
    """For a control: the budget of the attack it accompanies."""
    matched: Attack[Any] | None = None
    """For a control: the attack it accompanies."""
    peers: Peers | None = None
    """Other arms and cells, where the attack `replays` or `needs_peers`."""
    blind: Blind | None = None
    """Where a control runs the attack: what stands in for what guides it (`blinds`).
    What its gradients would have cost goes to more candidates."""
    checkpoints: tuple[float, ...] = ()
    """The shares of what it may spend, ascending, at which to keep what it would have
    returned: `Adversarial.checkpoints`. A control gets those of its attack."""
    gradients: int = 1
    """How many gradients an attack takes where it asks for one: one for each arm that
    they are averaged over."""

    def rng(self, *key: str | int) -> np.random.Generator:
        """Return a random stream, deterministic in (cell, `key`).

        It does not depend on the order of calls.
        """
        text = "\x1f".join([self.seed_key, *map(str, key)])
        digest = hashlib.sha256(text.encode()).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


class Attack(Plugin[OptionsT]):
    """Looks for prompts that raise the subject's loss on the same references."""

    uses_search_examples: ClassVar[bool] = False
    """True where `ExampleSets.search` and `.validation` must be given."""
    universal: ClassVar[bool] = False
    """True where one search serves all examples, so that they say nothing of how
    another search would have fared: it hands back `Adversarial.replicates`."""
    controls: ClassVar[tuple[str, ...] | None] = None
    """The attacks that accompany it as controls, at its budget, unless a suite says
    otherwise; none where it is a control itself, or only replays. None stands for those
    that show `search`."""
    blinds: ClassVar[tuple[Blind, ...]] = ()
    """How it can be run as its own control: it heeds `AttackContext.blind`, as whoever
    searches by a `harness.search.Guide` does. Without `uniform`, its random control
    flips as many tokens as its budget names."""
    shows: ClassVar[Shows | None] = None
    """What its results are evidence of, where that is more than its own strength."""
    replays: ClassVar[bool] = False
    """True where it runs no search but scores what other cells found: it `reads`."""
    needs_peers: ClassVar[bool] = False
    """True where it uses the subjects of other arms, those it `borrows`."""

    in_training: ClassVar[Mapping[str, Any]] = {}
    """The options that it has by default where recovery attacks blocks of every step:
    those of a search that is cheap, and strong for what it costs."""

    @abstractmethod
    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        """Yield one result for each of `examples.test`, in any order."""

    @abstractmethod
    def budget(self, examples: int) -> Budget:
        """Return what one example costs at most when `examples` share the work."""

    def missing(self) -> list[str]:
        """Return a sentence for each thing that `run` needs and this machine lacks."""
        return []

    def unbounded(self, prompt_tokens: int) -> OptionsT | None:
        """Return options with which every token of such a prompt may change.

        Full diagnostics run it to find out whether the attack works at all: without a
        limit it has to succeed. None where the attack has no such limit.
        """
        return None

    def doubled(self) -> OptionsT | None:
        """Return options with twice the budget; None where there are none.

        Where verdicts are asked for, an attack runs so, once, and keeps what it would
        have returned at the shares of `AttackContext.checkpoints`. So at half of it,
        where the search is one that goes on, stands what it finds as it is stated. An
        attack without such options says nothing of whether it had converged. Called on
        an attack that is `placed`.
        """
        return None

    def beside_prompt(self) -> int:
        """Return how many tokens it puts before or after each prompt.

        Where there are any, it is those that it may change.
        """
        return 0

    def unfit(self, matched: Attack[Any] | None) -> str | None:
        """Say why it cannot be the control of `matched` (or, of None, no control)."""
        if matched is not None and (self.replays or self.needs_peers):
            return f"{self.name} is made of other attacks, and takes no budget"
        return None

    def placed(self, scene: Scene) -> Attack[OptionsT]:
        """Return the attack as it acts in a cell of a suite: with what it takes there.

        Only an attack that is made of others needs this; by default it is itself.
        """
        return self

    def faults(self, scene: Scene) -> Iterable[tuple[str, str]]:
        """Yield options that name something the suite lacks: option, sentence.

        The arm and seed of `scene` stand for all.
        """
        return ()

    def reads(self, scene: Scene) -> Sequence[CellKey]:
        """Return the cells whose rows it uses; they are complete when it runs."""
        return ()

    def borrows(self, scene: Scene) -> Sequence[str]:
        """Return the arms whose subjects it uses besides its own."""
        return ()
