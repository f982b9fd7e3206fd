"""What a constraint implements, and what it may use."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from harness.api.costs import CostContext
from harness.api.models import Anatomy, ModelAdapter, Projection
from harness.api.plugin import OptionsT, Plugin
from harness.base import Ids
from harness.data import Example, ExampleSets
from harness.records import Cost, Derivation

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Visit = Callable[[int, int, Callable[[], Mapping[str, "Tensor"]]], None]
"""Gets the tokens that were trained on, all that will be, and what returns the weights
by then: by their names in a frozen model, and shared with the model in training."""


@dataclass(frozen=True)
class ArmContext:
    """What a constraint may use besides the model that it changes."""

    seed: int
    """The variant's."""
    tokenizer: PreTrainedTokenizerBase
    examples: Callable[[], ExampleSets]
    """The suite's examples, whatever ``--limit`` says; `validation` is never empty."""
    losses: Callable[[PreTrainedModel, Sequence[Example]], NDArray[np.float64]]
    """The loss [n] of each example on a model, in nats/token, in float32."""
    apart: Callable[[], Sequence[Example]]
    """Examples apart from the test examples, of texts that no training saw, at most
    1,000: those of the test examples' corpus come first. One of each document; where
    there are fewer documents, then of what follows in their texts."""
    allowed: Callable[[], Ids]
    """The ids [k], ascending, that attacks of this suite may write."""
    matched: Callable[[], PreTrainedModel] | None = None
    """Loads the frozen subject of the arm that `match_loss_of` names, if it does."""
    retrained: Callable[[Visit], None] | None = None
    """Trains the arm that it starts from once more, on the same tokens in the same
    order, and shows the model before the first step and after each; where that arm was
    trained, and the constraint `retraces`."""
    planted: Callable[[], PreTrainedModel] | None = None
    """Loads the frozen subject of the arm that `weaker_than` names, if it does."""
    attacked: Callable[[], Mapping[str, float]] | None = None
    """Returns what attacks did to the arm that it starts from, where the constraint
    `reads_attacks`: the largest dL of each test example among the attacks that this arm
    gets, in nats/token, by the example's `content_of`. Examples on which every attack
    ended in an error are left out."""
    report: Callable[[int, int], None] = lambda done, total: None
    """Tell the progress display how many of how many steps are done."""


class Constraint(Plugin[OptionsT]):
    """Changes a model's weights, and keeps them inside a set while it trains."""

    role: ClassVar[Literal["match", "plant"] | None] = None
    """What full diagnostics use it for on a copy of an arm: to bring its clean loss to
    that of another arm (`match`), or to train in a weakness that attacks have to find
    (`plant`): one of the stated `kind` (`token`, `ffn`, `pair`, `hidden`) and
    `strength` in nats, which its options take. None of a treatment.

    The record's `Derivation.measured` then has what verdicts are computed from. Of a
    match, its ``method`` in a word or two, ``documents``: for each text that it is
    judged by a name of its own as ``document``, ``unit``, what statistics take as one
    with others, ``arm_loss`` and ``match_loss``; and ``noise_on`` (``source``, or
    ``arm`` where it is the treated arm that was made worse: its loss is then the
    ``arm_loss``). Of a plant, ``kind``, ``strength`` and ``examples``: for each test
    ``example`` (its `content_of`) and its ``document``, ``own``, the arm's dL under
    attack, and ``planted``, that of the trigger."""

    retraces: ClassVar[bool] = False
    """True where `install` trains the arm that it starts from once more: a match of
    full diagnostics that only suites get which ask for it."""

    trained_copies: ClassVar[float] = 0.0
    """How many numbers training keeps for each feed-forward weight besides the weight,
    its gradient and the optimizer's: 1 where weights are computed from others and kept
    for a step, as parametrizations do."""

    @property
    def uses_examples(self) -> bool:
        """True where `install` reads the suite's examples."""
        return False

    @property
    def reads_attacks(self) -> bool:
        """True where `install` reads what attacks did to the arm that it starts from.

        The cells of that arm are then complete before.
        """
        return False

    @property
    def matches_loss(self) -> bool:
        """True where the arm must say whose clean loss it is to have."""
        return False

    def install(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, context: ArmContext
    ) -> Derivation | None:
        """Install the start and the constraint with the help of more than the model.

        By default that is `apply`. Returns what is to stand in the record, if anything.
        """
        self.apply(adapter, model, context.seed)
        return None

    @abstractmethod
    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        """Install the start and the constraint, in place (float32).

        The model is on the device that it is trained on.
        """

    def expected_cost(self, context: CostContext) -> Cost:
        """Return what `install` costs on a model, in passes and further `seconds`.

        By default nothing: a start is over in a moment.
        """
        return Cost()

    def promised(self, anatomy: Anatomy) -> list[Projection]:
        """Return the matrices whose effective weight is promised to be >= 0.

        Override it only to promise something: certificates fail where an override
        returns no matrix.
        """
        return []

    def parameter_groups(
        self, model: PreTrainedModel, learning_rate: float, weight_decay: float
    ) -> list[dict[str, Any]]:
        """Return the optimizer's groups; every parameter in exactly one of them.

        Biases, norms and embeddings' gains get no weight decay, as is usual.
        """
        decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
        others = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
        return [
            {"params": decayed, "lr": learning_rate, "weight_decay": weight_decay},
            {"params": others, "lr": learning_rate, "weight_decay": 0.0},
        ]

    def after_step(self, model: PreTrainedModel) -> None:
        """Called after each optimizer step: where a projection clamps."""
