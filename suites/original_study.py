"""One-shot HotFlip as first published for this question, with its faults left in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from harness import hookimpl
from harness.api import Adversarial, Attack, AttackContext, Budget, Options
from harness.base import Ids, Positive
from harness.data import Example, ExampleSets
from harness.subject import Subject

if TYPE_CHECKING:
    from torch import Tensor


class OneShotOptions(Options):
    """Options of the one-shot attack."""

    flips: Positive = 5
    """How many positions are written at once."""
    candidates: Positive = 8
    """Prompts that are scored: the r-th writes the r-th best token at each position."""


class OneShot(Attack[OneShotOptions]):
    """Writes all flips at once from a single gradient, and scores its own tokens.

    Its loss is that of prompt and reference together, as `labels=input_ids` gives it.
    The tokens that it wrote are in it, and a rare token raises it wherever it stands.
    What the harness reports is the loss of the reference alone.
    """

    name = "one-shot"
    Options = OneShotOptions
    controls = ("random",)

    def budget(self, examples: int) -> Budget:
        return Budget(
            forward=self.options.candidates, backward=1, flips=self.options.flips
        )

    def doubled(self) -> OneShotOptions | None:
        twice = 2 * self.options.candidates
        return self.options.model_copy(update={"candidates": twice})

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        for example in examples.test:
            prompts = self._candidates(subject, example)
            wholes = [np.r_[one[1:], example.reference_ids] for one in prompts]
            losses = subject.losses([one[:1] for one in prompts], wholes)
            kept = {
                share: prompts[
                    int(losses[: max(1, int(share * len(prompts)))].argmax())
                ]
                for share in context.checkpoints
            }
            best = prompts[int(losses.argmax())]
            yield Adversarial(example.id, best, checkpoints=kept)

    def _candidates(self, subject: Subject, example: Example) -> list[Ids]:
        """Return a prompt for each rank of tokens, at the positions of highest gain."""
        prompt = np.asarray(example.prompt_ids)
        gains = subject.gains(prompt, _gradient(subject, example))
        gains[~example.free] = float("-inf")
        ranked, tokens = gains.topk(self.options.candidates, dim=1)
        places = ranked[:, 0].topk(self.options.flips).indices.cpu().numpy()
        written = tokens.cpu().numpy()
        prompts = []
        for rank in range(self.options.candidates):
            prompts.append(prompt.copy())
            prompts[-1][places] = written[places, rank]
        return prompts


def _gradient(subject: Subject, example: Example) -> Tensor:
    """Return the gradient [n, d] of the loss of prompt and reference, at the prompt."""
    import torch

    model, _ = subject.huggingface()
    whole = np.r_[example.prompt_ids, example.reference_ids]
    with torch.inference_mode(mode=False), torch.enable_grad():
        ids = torch.as_tensor(whole, device=model.device)[None]
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        loss = model(inputs_embeds=embedded, labels=ids).loss
        (gradient,) = torch.autograd.grad(loss, embedded)
    return gradient[0, : len(example.prompt_ids)]


@hookimpl
def register_attacks() -> list[type[OneShot]]:
    """Offer the attack."""
    return [OneShot]
