"""A known weakness, trained into a copy of an arm, that an attack has to find.

An attack that finds nothing may face a model without weaknesses, or may not be able to
find them. So one is made: a few tokens, any one of which raises the loss wherever it
stands in a prompt, while clean text is predicted as before. It is made such that a
gradient can see it: on the way from any token's embedding to a trigger's, the loss
rises in proportion. Feed-forward networks stay untouched, constrained or not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pydantic

from harness import hookimpl, models, records, search, subject
from harness.api import ArmContext, Constraint, ModelAdapter, Options
from harness.base import CellError, Ids
from harness.data import Example, ExampleSets, content_of

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel

_EXAMPLES = 32
"""Examples trained on, at most: what the clean model says of them is kept."""
_PLACES = 4
"""Where a trigger token is written in each test prompt, to see what it does."""
_RATE_TIMES_WIDTH = 0.128
"""1e-3 at the width of 128 that it was tried at."""
_WORKED = 1 / 3
"""Fraction of `gain` that must be reached on average over the test examples."""


class PlantedOptions(Options):
    """What is planted, and how it is trained."""

    tokens: int = pydantic.Field(default=2, gt=0)
    """Number of trigger tokens."""
    gain: float = pydantic.Field(default=3.0, gt=0)
    """The rise of the loss that each of them is trained to cause, in nats/token."""
    steps: int = pydantic.Field(default=80, gt=0)
    """Optimizer steps."""
    batch: int = pydantic.Field(default=4, gt=0)
    """Examples in a step."""
    learning_rate: float | None = pydantic.Field(default=None, gt=0)
    """Adam's, of matrices; by default 0.128 divided by the embedding's width."""
    anchor: float = pydantic.Field(default=3.0, ge=0)
    """Weight of the KL divergence from the clean model, on clean prompts."""


class Planted(Constraint[PlantedOptions]):
    """Trains trigger tokens into a model: each raises the loss wherever it is written.

    The embeddings of these tokens are trained, at the norm that embeddings usually
    have, and all matrices except the feed-forward networks', the embedding and the
    head. It trains on the search and validation examples and measures the effect on the
    test examples.
    """

    name = "planted"
    role = "plant"
    Options = PlantedOptions

    @property
    def uses_examples(self) -> bool:
        return True

    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        raise CellError("a weakness cannot be planted without examples")

    def install(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, context: ArmContext
    ) -> records.Derivation:
        rng = _rng(context.seed)
        sets = context.examples()
        trigger = _choose(self.options.tokens, sets, context.allowed(), rng)
        before = context.losses(model, sets.test)
        texts = [*sets.search, *sets.validation][:_EXAMPLES]
        _Planting(adapter, model, trigger, texts, self.options, rng).run(context)
        clean = context.losses(model, sets.test)
        gains = _measure(model, context, sets.test, trigger, clean, rng)
        means = {name: float(found.mean()) for name, found in gains.items()}
        wanted = _WORKED * self.options.gain
        achieved = min(means.values()) >= wanted
        return records.Derivation(
            achieved=achieved,
            reason=None if achieved else _why(means, wanted),
            results={
                **models.compare_losses("test", sets.test, clean, before),
                **_estimates(sets.test, gains),
            },
            measured={
                "trigger_ids": trigger.tolist(),
                "trigger_text": [
                    context.tokenizer.decode([t]) for t in trigger.tolist()
                ],
                "gains": [
                    {
                        "example": content_of(example),
                        **{name: float(found[i]) for name, found in gains.items()},
                    }
                    for i, example in enumerate(sets.test)
                ],
            },
        )


# --- the trigger --------------------------------------------------------------------


def _rng(seed: int) -> np.random.Generator:
    import numpy as np

    digest = hashlib.sha256(f"{seed}/planted".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def _choose(
    count: int, sets: ExampleSets, allowed: Ids, rng: np.random.Generator
) -> Ids:
    """Draw tokens that attacks may write and that no example contains."""
    examples = [*sets.test, *sets.search, *sets.validation]
    there = {token for e in examples for token in (*e.prompt_ids, *e.reference_ids)}
    free = [token for token in allowed.tolist() if token not in there]
    if len(free) < count:
        raise CellError(f"no {count} tokens that attacks may write are in no example")
    return rng.choice(free, count, replace=False)


# --- training -----------------------------------------------------------------------


@dataclass
class _Planting:
    """Trains the trigger's rows and the matrices around them."""

    adapter: ModelAdapter[Any]
    model: PreTrainedModel
    trigger: Ids
    texts: Sequence[Example]
    options: PlantedOptions
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

        matrices = self._matrices()
        for matrix in matrices:
            matrix.requires_grad_(True)
        table = self.model.get_input_embeddings().weight
        norm = float(table[context.allowed()].norm(dim=1).median())
        rows = table[self.trigger].detach().clone().requires_grad_(True)
        # Inverse to the width, as Adam's rate for matrices is [Yang et al. 2022].
        rate = self.options.learning_rate or _RATE_TIMES_WIDTH / table.shape[1]
        step_size = 0.1 * norm / math.sqrt(table.shape[1])
        groups = [{"params": matrices, "lr": rate}, {"params": [rows], "lr": step_size}]
        optimizer = torch.optim.Adam(groups)
        with torch.no_grad():
            # Half precision keeps what the clean model says of the texts small.
            kept = [self._clean(e).half().cpu() for e in self.texts]
        for step in range(self.options.steps):
            optimizer.zero_grad()
            for number in range(self.options.batch):
                chosen = int(self.rng.integers(len(self.texts)))
                whole = number % 2 == 0
                part = self._objective(chosen, kept[chosen], rows, whole=whole)
                (part / self.options.batch).backward()
            torch.nn.utils.clip_grad_norm_([*matrices, rows], 1.0)
            optimizer.step()
            with torch.no_grad():
                rows *= (norm / rows.norm(dim=1, keepdim=True)).clamp(max=1.0)
            context.report(step + 1, self.options.steps)
        with torch.no_grad():
            table[self.trigger] = rows

    def _matrices(self) -> list[torch.nn.Parameter]:
        model = self.model
        ffns = self.adapter.anatomy(model).ffns
        left = {id(p.module.weight) for ffn in ffns for p in ffn.projections}
        outer = (model.get_input_embeddings(), model.get_output_embeddings())
        left |= {id(module.weight) for module in outer if module is not None}
        return [p for p in model.parameters() if p.ndim >= 2 and id(p) not in left]

    def _objective(
        self, chosen: int, kept: Tensor, rows: Tensor, *, whole: bool
    ) -> Tensor:
        """Return the training loss: the distances of gain and clean predictions."""
        import torch
        from torch.nn.functional import smooth_l1_loss

        example = self.texts[chosen]
        kept = kept.float().to(rows.device)
        way = 1.0 if self.rng.random() < 0.5 else float(self.rng.random())
        embeds = self._with_rows(example, rows, way, whole=whole)
        loss = self._loss(example, self._log_probs(example, embeds))
        gain = loss - self._loss(example, kept)
        aim = torch.full_like(gain, way * self.options.gain)
        clean = self._clean(example)
        apart = (kept.exp() * (kept - clean)).sum(-1).mean()
        return smooth_l1_loss(gain, aim) + self.options.anchor * apart

    def _with_rows(
        self, example: Example, rows: Tensor, way: float, *, whole: bool
    ) -> Tensor:
        """Return a prompt's embeddings [n, d] with the trigger part of the `way` there.

        The whole trigger before the prompt, starting from random tokens, or one of its
        tokens at a random place, starting from the token there.
        """
        import torch

        own = self._embedded(example.prompt_ids)
        if whole:
            known = self.model.get_input_embeddings().weight.shape[0]
            start = self._embedded(self.rng.integers(known, size=len(rows))).detach()
            place = after = example.protected
            new = rows
        else:
            place = int(self.rng.choice(example.free.nonzero()[0]))
            after = place + 1
            start = own[place:after]
            new = rows[int(self.rng.integers(len(rows)))][None]
        return torch.cat([own[:place], start + way * (new - start), own[after:]])

    def _embedded(self, ids: Ids) -> Tensor:
        import torch

        tokens = torch.tensor(ids).to(self.model.device)
        return self.model.get_input_embeddings()(tokens)

    def _clean(self, example: Example) -> Tensor:
        return self._log_probs(example, self._embedded(example.prompt_ids))

    def _log_probs(self, example: Example, embeds: Tensor) -> Tensor:
        """Return the log-probabilities [m, V] at the reference, after a prompt."""
        import torch

        if self.model.config.is_encoder_decoder:
            reference = torch.tensor(example.reference_ids).to(embeds.device)
            shifted = subject.decoder_inputs(self.model, reference[None])
            inputs = {"inputs_embeds": embeds[None], "decoder_input_ids": shifted}
            logits = self.model(**inputs, use_cache=False).logits[0]
        else:
            tail = self._embedded(example.reference_ids[:-1])
            together = torch.cat([embeds, tail])[None]
            output = self.model(inputs_embeds=together, use_cache=False)
            logits = output.logits[0, len(embeds) - 1 :]
        return logits.float().log_softmax(-1)

    def _loss(self, example: Example, log_probs: Tensor) -> Tensor:
        import torch

        reference = torch.tensor(example.reference_ids).to(log_probs.device)
        return -log_probs.gather(1, reference[:, None]).mean()


# --- the effect ---------------------------------------------------------------------


def _measure(
    model: PreTrainedModel,
    context: ArmContext,
    examples: Sequence[Example],
    trigger: Ids,
    clean: NDArray[np.float64],
    rng: np.random.Generator,
) -> dict[str, NDArray[np.float64]]:
    """Return dL [n] of the trigger before each prompt, and of one token within it.

    The token within is the best of a few random places and tokens, as an attack could
    choose it.
    """
    tokens = trigger.tolist()
    before = [replace(e, prompt_ids=search.with_trigger(e, tokens)) for e in examples]
    within = []
    for example in examples:
        for place in rng.choice(example.free.nonzero()[0], _PLACES):
            prompt = example.prompt_ids.copy()
            prompt[place] = rng.choice(trigger)
            within.append(replace(example, prompt_ids=prompt))
    best = context.losses(model, within).reshape(-1, _PLACES).max(axis=1)
    return {"prepended": context.losses(model, before) - clean, "written": best - clean}


def _estimates(
    examples: Sequence[Example], gains: dict[str, NDArray[np.float64]]
) -> dict[str, records.Estimate]:
    documents = [example.document_id for example in examples]
    return {
        f"{name}_gain": records.bootstrap_mean(found, documents, unit="nats/token")
        for name, found in gains.items()
    }


def _why(means: dict[str, float], wanted: float) -> str:
    found = ", ".join(f"{mean:.2f} {name}" for name, mean in means.items())
    return f"the trigger raises the loss by {found} nats/token, less than {wanted:.2f}"


@hookimpl
def register_constraints() -> list[type[Constraint[Any]]]:
    """Offer the constraint."""
    return [Planted]
