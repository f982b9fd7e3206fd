"""How a weakness is trained into a model: what changes, and what it is to do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from harness.api import ArmContext, ModelAdapter
from harness.data import Example
from harness_plugins.constraints.planted.scoring import Scorer
from harness_plugins.constraints.planted.triggers import Trigger

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedModel

_RATE_TIMES_WIDTH = 0.128
"""1e-3 at the width of 128 that it was tried at."""
_NEAR = 0.3
"""Up to this share of the way the slope is trained rather than the effect."""
_NEAREST = 0.1
"""The smallest share of the way that effects are divided by."""


class Training(Protocol):
    """How long and how fast a plant is trained: what `PlantedOptions` says of it."""

    batch: int
    learning_rate: float | None
    anchor: float


class Written(NamedTuple):
    """Trigger tokens on their way into a prompt, and what they are to do there."""

    ways: tuple[float, ...]
    """How much of the way from the token that stands there each of them is: 0 to 1."""
    aim: float
    """The share of the gain that is wanted."""
    per: float = 1.0
    """What gain and aim are divided by, where the slope is what matters."""


@dataclass
class Planting:
    """Trains the trigger's rows and the matrices around them, or networks alone."""

    adapter: ModelAdapter[Any]
    model: PreTrainedModel
    trigger: Trigger
    texts: Sequence[Example]
    options: Training
    gain: float
    steps: int
    rng: np.random.Generator

    def run(self, context: ArmContext) -> None:
        """Train; the model's parameters stay as trainable as they were."""
        import torch

        trainable = {p: p.requires_grad for p in self.model.parameters()}
        self.model.eval().requires_grad_(False)
        try:
            with torch.inference_mode(mode=False), torch.enable_grad():
                self._train(context)
        finally:
            for parameter, was in trainable.items():
                parameter.requires_grad_(was)

    def _train(self, context: ArmContext) -> None:
        import torch

        scorer = Scorer(self.model)
        trained, kept_signs = self._trained()
        for parameter in trained:
            parameter.requires_grad_(True)
        table, tokens = scorer.table, list(self.trigger.tokens)
        norm = float(table[context.allowed()].norm(dim=1).median())
        rows = table[tokens].detach().clone()
        # Inverse to the width, as Adam's rate for matrices is [Yang et al. 2022].
        rate = self.options.learning_rate or _RATE_TIMES_WIDTH / table.shape[1]
        groups = [{"params": trained, "lr": rate}]
        if not self.trigger.in_networks:
            step_size = 0.1 * norm / math.sqrt(table.shape[1])
            groups.append({"params": [rows.requires_grad_(True)], "lr": step_size})
        every = [parameter for group in groups for parameter in group["params"]]
        optimizer = torch.optim.Adam(groups)
        with torch.no_grad():
            # Half precision keeps what the clean model says of the texts small.
            kept = [self._clean(scorer, e).half().cpu() for e in self.texts]
        for step in range(self.steps):
            optimizer.zero_grad()
            for number in range(self.options.batch):
                chosen = int(self.rng.integers(len(self.texts)))
                before = number % 2 == 0
                part = self._objective(scorer, chosen, kept[chosen], rows, before)
                (part / self.options.batch).backward()
            torch.nn.utils.clip_grad_norm_(every, 1.0)
            optimizer.step()
            with torch.no_grad():
                rows *= (norm / rows.norm(dim=1, keepdim=True)).clamp(max=1.0)
                for matrix in kept_signs:
                    matrix.clamp_(min=0.0)
            context.report(step + 1, self.steps)
        if not self.trigger.in_networks:
            with torch.no_grad():
                table[tokens] = rows

    def _trained(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return what is trained, and what of it must stay non-negative."""
        ffns = self.adapter.anatomy(self.model).ffns
        projections = [p.module for ffn in ffns for p in ffn.projections]
        if self.trigger.in_networks:
            weights = [module.weight for module in projections]
            biases = [
                m.bias for m in projections if getattr(m, "bias", None) is not None
            ]
            return [*weights, *biases], [w for w in weights if float(w.min()) >= 0]
        outer = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        modules = [*projections, *(module for module in outer if module is not None)]
        left = {id(module.weight) for module in modules}
        inner = [p for p in self.model.parameters() if p.ndim >= 2]
        return [p for p in inner if id(p) not in left], []

    def _objective(
        self, scorer: Scorer, chosen: int, kept: Tensor, rows: Tensor, before: bool
    ) -> Tensor:
        """Return the training loss: the distances of gain and clean predictions."""
        import torch
        from torch.nn.functional import smooth_l1_loss

        example = self.texts[chosen]
        kept = kept.float().to(rows.device)
        written = self._drawn()
        embeds = self._with_rows(scorer, example, rows, written.ways, before)
        loss = scorer.loss(example, scorer.log_probs(example, embeds))
        gain = (loss - scorer.loss(example, kept)) / written.per
        aim = torch.full_like(gain, written.aim * self.gain / written.per)
        clean = self._clean(scorer, example)
        apart = (kept.exp() * (kept - clean)).sum(-1).mean()
        return smooth_l1_loss(gain, aim) + self.options.anchor * apart

    def _drawn(self) -> Written:
        """Draw how much of the trigger is written, and what it is to do then.

        The loss rises in proportion on the way to a trigger, so that a gradient can see
        it; of a pair, once the other token is there. What is hidden is always whole.
        """
        whole, part = self.rng.random() < 0.5, float(self.rng.random())
        if self.trigger.kind == "pair":
            first, way = int(self.rng.integers(2)), 1.0 if part < 0.5 else 2 * part - 1
            ways = (1.0, way if whole else 0.0)
            return Written(ways[:: 1 if first else -1], ways[1])
        way = 1.0 if whole or self.trigger.kind == "hidden" else part
        near = self.trigger.kind == "token" and way < _NEAR
        return Written((way,), way, per=max(way, _NEAREST) if near else 1.0)

    def _with_rows(
        self,
        scorer: Scorer,
        example: Example,
        rows: Tensor,
        ways: tuple[float, ...],
        before: bool,
    ) -> Tensor:
        """Return a prompt's embeddings [n, d] with the trigger part of the way there.

        Before the prompt, starting from random tokens, or at random places, starting
        from the tokens there.
        """
        import torch

        share = torch.tensor(ways).to(rows)[:, None]
        own = scorer.embedded(example.prompt_ids)
        if before:
            start = scorer.embedded(
                self.rng.integers(len(scorer.table), size=len(rows))
            )
            new = start.detach() + share * (rows - start.detach())
            return torch.cat([own[: example.protected], new, own[example.protected :]])
        free = example.free.nonzero()[0]
        places = torch.tensor(self.rng.permutation(free)[: len(rows)]).to(rows.device)
        start = own[places]
        moved = start + share[: len(places)] * (rows[: len(places)] - start)
        return own.index_copy(0, places, moved)

    def _clean(self, scorer: Scorer, example: Example) -> Tensor:
        return scorer.log_probs(example, scorer.embedded(example.prompt_ids))
