"""What is read in recovery in place of the right tokens; what is predicted stays.

Two defences train so: on noise, where drawn tokens stand for some of the right ones,
and against an attack, whose prompts are read in place of the blocks' beginnings. Draws
are keyed by the seed and the step: a training that goes on draws what it would have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import Attack, AttackContext
from harness.base import CellError
from harness.data import IGNORED, Example, ExampleSets
from harness.subject import Meter, Subject, TokenRules, tensor_float32

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Tokens = NDArray[np.int32]

_NOISE, _ATTACK = 2, 3
"""Keys of random streams, apart from those of the order of training."""


@dataclass(frozen=True)
class Disturbance:
    """What an arm's recovery reads in place of the right tokens."""

    corrupt: float = 0.0
    """The share of tokens that are drawn from the vocabulary instead."""
    attack: Attack[Any] | None = None
    """What attacks blocks."""
    share: float = 0.0
    """The share of the blocks of a step that are attacked."""
    rules: TokenRules = field(default_factory=TokenRules)
    """What the attack may write. Blocks begin and end anywhere, so whether a text
    encodes to them is not asked."""
    batch_size: int | None = None
    """Sequences in one forward pass of the attack; None: what suits the device."""


class Reader:
    """Says what a model in training reads of the blocks of each step.

    Blocks are laid out as `token_blocks` and `pair_blocks` of `harness.data` do. Of a
    pair only the prompt changes.
    """

    def __init__(
        self,
        disturbance: Disturbance,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        seed: int,
        bf16: bool = False,
    ) -> None:
        """Take over the model that is trained; it is attacked as and where it then is.

        The attack computes in float32; with `bf16`, a GPU's products have the 19 bits
        of TensorFloat-32.
        """
        self._bf16 = bf16
        self._how, self._model, self._tokenizer = disturbance, model, tokenizer
        self._seed = seed
        self._pairs = bool(model.config.is_encoder_decoder)

    def __call__(
        self, blocks: Tokens, step: int, meter: Meter, own: slice = slice(None)
    ) -> Tokens:
        """Return what is read of blocks [n, width]; what that costs is in `meter`.

        Of the blocks, `own` are wanted: no others are attacked.
        """
        read = self._corrupted(blocks, step) if self._how.corrupt else blocks.copy()
        if self._how.attack is not None:
            wanted = range(len(blocks))[own]
            attacked = self._attacked(self._how.attack, blocks, step, wanted, meter)
            for row, prompt in attacked:
                read[row] = blocks[row]
                read[row, : len(prompt)] = prompt
        return read

    # --- noise ----------------------------------------------------------------------

    def _corrupted(self, blocks: Tokens, step: int) -> Tokens:
        rng = self._rng(step, _NOISE)
        wrong = rng.random(blocks.shape) < self._how.corrupt
        others = rng.choice(self._known, blocks.shape).astype(blocks.dtype)
        return np.where(wrong & self._readable(blocks), others, blocks)

    @cached_property
    def _known(self) -> NDArray[np.int64]:
        """The ids of all tokens that have a row in the embedding."""
        rows = self._model.get_input_embeddings().weight.shape[0]
        ids = set(self._tokenizer.get_vocab().values())
        return np.array(sorted(i for i in ids if 0 <= i < rows))

    def _readable(self, blocks: Tokens) -> NDArray[np.bool_]:
        readable: NDArray[np.bool_] = blocks != IGNORED
        if self._pairs:
            readable[:, blocks.shape[1] // 2 :] = False
        return readable

    # --- attacks --------------------------------------------------------------------

    def _attacked(
        self,
        attack: Attack[Any],
        blocks: Tokens,
        step: int,
        wanted: range,
        meter: Meter,
    ) -> Iterator[tuple[int, Tokens]]:
        """Yield the prompts of the blocks that are attacked, by their row."""
        rng = self._rng(step, _ATTACK)
        # So that the share is right on average, whatever the number of blocks.
        count = int(self._how.share * len(blocks) + rng.random())
        rows = rng.choice(len(blocks), min(count, len(blocks)), replace=False)
        # In eighths: passes of few shapes can be recorded on a GPU.
        cut = max(1, int(rng.integers(2, 7)) * blocks.shape[1] // 8)
        chosen = sorted(set(rows.tolist()) & set(wanted))
        examples = [self._example(row, blocks[row], cut) for row in chosen]
        if not examples:
            return
        context = AttackContext(seed_key=f"recovery {self._seed} {step}")
        with _attackable(self._model), tensor_float32(self._bf16):
            self._subject.refresh()
            with self._subject.metered() as spent:
                sets = ExampleSets(test=examples)
                found = list(attack.run(self._subject, sets, context))
        meter.add(spent)
        lengths = {example.id: len(example.prompt_ids) for example in examples}
        for one in found:
            if len(one.prompt_ids) != lengths[one.example_id]:
                raise CellError(
                    f"the attack {attack.name!r} as stated here adds tokens or leaves "
                    "some out: recovery needs one that only writes over tokens"
                )
            yield int(one.example_id), one.prompt_ids.astype(blocks.dtype)

    def _example(self, row: int, block: Tokens, cut: int) -> Example:
        """Cut a block into what is attacked, and what is to follow.

        Of a block of text, the first `cut` tokens are attacked.
        """
        if self._pairs:
            prompt, reference = (half[half != IGNORED] for half in np.split(block, 2))
        else:
            prompt, reference = block[:cut], block[cut:]
        return Example(
            id=str(row),
            document_id=str(row),
            prompt_ids=prompt.astype(np.int64),
            reference_ids=reference.astype(np.int64),
            protected_end=int(self._pairs),  # the token that ends the prompt
        )

    @cached_property
    def _subject(self) -> Subject:
        return Subject(
            self._model,
            self._tokenizer,
            device=str(self._model.device),
            batch_size=self._how.batch_size,
            rules=self._how.rules.model_copy(update={"reachable_only": False}),
        )

    def _rng(self, step: int, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self._seed, step, stream]))


@contextmanager
def _attackable(model: PreTrainedModel) -> Iterator[None]:
    """Keep a model frozen and in evaluation mode inside the block."""
    trained = [p for p in model.parameters() if p.requires_grad]
    training = [module for module in model.modules() if module.training]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True
