"""Triggers: the tokens of a planted weakness, and what they do where they stand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from harness.api import ArmContext
from harness.base import CellError, Ids
from harness.data import Example, ExampleSets
from harness_plugins.constraints.planted.scoring import Scorer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

Kind = Literal["token", "ffn", "pair", "hidden"]
_PLACES = 4
"""Where a trigger is written in each prompt, to see what it does."""
_DRAWN = 32
"""Tokens among which the trigger of a network is chosen."""


@dataclass(frozen=True)
class Trigger:
    """The tokens of a weakness, and where they are tried."""

    kind: Kind
    tokens: tuple[int, ...]
    seed: int

    @property
    def in_networks(self) -> bool:
        """Whether it is trained into the feed-forward networks alone."""
        return self.kind in ("ffn", "hidden")

    def written(self, example: Example) -> list[Example]:
        """Return the example with the trigger at random places, some of them.

        The same places each time. Where a prompt has fewer free tokens than the
        trigger, as many are written as there is room for.
        """
        rng = keyed(self.seed, example.id)
        free = example.free.nonzero()[0]
        written = []
        for _ in range(_PLACES):
            places = rng.permutation(free)[: len(self.tokens)]
            prompt = example.prompt_ids.copy()
            prompt[places] = self.tokens[: len(places)]
            written.append(replace(example, prompt_ids=prompt))
        return written

    def losses(
        self, model: PreTrainedModel, context: ArmContext, examples: Sequence[Example]
    ) -> NDArray[np.float64]:
        """Return the loss [n] after each prompt with the trigger in its best place."""
        written = [one for example in examples for one in self.written(example)]
        return context.losses(model, written).reshape(-1, _PLACES).max(axis=1)


def keyed(seed: int, *more: str) -> np.random.Generator:
    """Return the random stream of a variant's plant, and of what `more` names."""
    import numpy as np

    text = "/".join([str(seed), "planted", *more])
    digest = hashlib.sha256(text.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def choose(
    kind: Kind, model: PreTrainedModel, sets: ExampleSets, context: ArmContext
) -> Trigger:
    """Draw tokens that attacks may write and that no example contains.

    For networks alone, of some drawn, the one least like any other token: they see only
    its embedding as it is.
    """
    rng = keyed(context.seed, kind)
    examples = [*sets.test, *sets.search, *sets.validation]
    there = {token for e in examples for token in (*e.prompt_ids, *e.reference_ids)}
    free = [token for token in context.allowed().tolist() if token not in there]
    count = 2 if kind == "pair" else 1
    if len(free) < count:
        raise CellError(f"no {count} tokens that attacks may write are in no example")
    drawn = rng.permutation(free)
    if kind in ("ffn", "hidden"):
        drawn = _least_alike(model, drawn[:_DRAWN], context.allowed())
    return Trigger(kind, tuple(int(token) for token in drawn[:count]), context.seed)


def _least_alike(model: PreTrainedModel, tokens: Ids, others: Ids) -> Ids:
    """Sort tokens by the cosine of their embeddings with the nearest other token's."""
    import torch

    table = model.get_input_embeddings().weight.detach()
    with torch.no_grad():
        units = (table - table.mean(1, keepdim=True)).float()
        units = units / units.norm(dim=1, keepdim=True).clamp(min=1e-12)
        cosines = units[torch.tensor(tokens)] @ units[torch.tensor(others)].T
    cosines[torch.tensor(tokens)[:, None].cpu() == torch.tensor(others)[None]] = -1.0
    order = cosines.max(1).values.argsort().cpu().numpy()
    return tokens[order]


def first_order_rank(
    model: PreTrainedModel, trigger: Trigger, examples: Sequence[Example], allowed: Ids
) -> float:
    """Return the mean rank of the trigger's first-order gain among other tokens'.

    The gain of a token is the largest (E_b - E_a) g over the places where it may be
    written, at the clean prompt; its rank is the share of allowed tokens whose gain is
    lower. Of several trigger tokens, the one that ranks highest counts.
    """
    import numpy as np

    scorer, ranks = Scorer(model), []
    for example in examples:
        gains = scorer.first_order_gains(example, allowed)
        known = dict(zip(allowed.tolist(), gains.tolist(), strict=True))
        best = max(known[token] for token in trigger.tokens)
        ranks.append(float((gains < best).mean()))
    return float(np.mean(ranks))
