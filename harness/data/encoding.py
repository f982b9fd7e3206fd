"""Texts as token ids, in the form in which a model reads and continues them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prompt:
    """The ids of a prompt, and how many at its ends no attack may touch."""

    ids: list[int]
    protected: int
    protected_end: int


class TextEncoder:
    """Encodes prompts and references for one tokenizer and one kind of model.

    A causal model reads what the tokenizer puts first (OPT's ``</s>``), the prompt and
    then the reference. An encoder-decoder model reads the prompt with an end token
    behind it, and writes the reference with an end token behind that.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, encoder_decoder: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self.encoder_decoder = encoder_decoder
        start, end = special_ids(tokenizer)
        self.start = start
        """The ids that precede every prompt."""
        self.end = self._end(end) if encoder_decoder else []
        """The ids that close a prompt and a whole reference."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text alone, without special tokens."""
        encoded = self._tokenizer(text, add_special_tokens=False, verbose=False)
        return list(encoded["input_ids"])

    def prompt(self, ids: list[int], fixed: int, limit: int) -> Prompt:
        """Return the prompt that begins with `ids`: `limit` of them, the end included.

        The first `fixed` of them are protected, as is what the tokenizer adds.
        """
        kept = ids[: limit - len(self.end)]
        return self.framed(kept, min(fixed, len(kept)))

    def framed(self, ids: list[int], fixed: int = 0) -> Prompt:
        """Return ids with what the model expects before and behind them."""
        return Prompt(
            [*self.start, *ids, *self.end], len(self.start) + fixed, len(self.end)
        )

    def reference(self, text: str, limit: int) -> list[int]:
        """Return at most `limit` ids of a reference; one that is cut has no end."""
        return [*self.encode(text), *self.end][:limit]

    def fixed(self, ids: list[int], prefix: str) -> int:
        """Return how many of a prompt's first `ids` are those of its prefix alone."""
        alone = self.encode(prefix.rstrip())
        return shared_start([alone, ids])

    def continuation(self, context: str, answer: str) -> tuple[list[int], list[int]]:
        """Return the ids of a context, and of the answer as it is written after it.

        For a causal model, both together are the ids of the joined text, the answer
        having the white space between them. Raises `Entangled` where a token of that
        text belongs to both.
        """
        if self.encoder_decoder:
            return self.encode(context), [*self.encode(answer.strip()), *self.end]
        before = context.rstrip()
        ids, whole = self.encode(before), self.encode(context + answer)
        if whole[: len(ids)] != ids or len(whole) == len(ids):
            raise Entangled
        return ids, whole[len(ids) :]

    def _end(self, added: list[int]) -> list[int]:
        if added:
            return added
        end = self._tokenizer.eos_token_id
        if end is None:
            raise UsageError("the tokenizer has no end-of-text token to close texts by")
        return [int(end)]


class Entangled(Exception):
    """A text whose tokens cannot be cut where the answer begins."""


def shared_start(sequences: list[list[int]]) -> int:
    """Return how many first ids all sequences share."""
    count = 0
    for column in zip(*sequences, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count


def special_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids that a tokenizer puts before and behind every text."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    starts = range(len(whole) - len(bare) + 1)
    start = next(s for s in starts if whole[s : s + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]
