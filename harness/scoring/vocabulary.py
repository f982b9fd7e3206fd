"""Which tokens an attack may write, and how token ids and text correspond."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from harness.interfaces import Ids

REPLACEMENT = "\ufffd"
"""What decoding puts where the bytes of a token are no text on their own."""


class Vocabulary:
    """The tokenizer's side of a subject.

    Embedding matrices have rows that are no token (Pythia: 50,304 rows for 50,277
    tokens), special tokens that no text contains, and tokens that are parts of a
    character. None of them may appear in an attack.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: int,
        *,
        ascii_only: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.rows = rows
        """Number of rows of the embedding matrix."""
        self.ascii_only = ascii_only

    @cached_property
    def allowed(self) -> Ids:
        """The ids [k], ascending, that an attack may write.

        Those that are in the tokenizer and in the embedding, not special, not added
        after the tokenizer's training, and whose own text is neither empty nor broken
        (and, with `ascii_only`, nothing but ASCII).
        """
        known = {i for i in self.tokenizer.get_vocab().values() if 0 <= i < self.rows}
        candidates = sorted(known - self._special_or_added())
        texts = self.tokenizer.batch_decode(
            [[i] for i in candidates], clean_up_tokenization_spaces=False
        )
        kept = [i for i, text in zip(candidates, texts, strict=True) if self._is(text)]
        return np.array(kept, dtype=np.int64)

    @cached_property
    def sha256(self) -> str:
        """The hash of the allowed ids, as decimal numbers joined by commas."""
        return hashlib.sha256(",".join(map(str, self.allowed)).encode()).hexdigest()

    def mask(self, rows: int | None = None) -> NDArray[np.bool_]:
        """Return a boolean array [rows] that is true at the allowed ids."""
        mask = np.zeros(self.rows if rows is None else rows, dtype=np.bool_)
        mask[self.allowed] = True
        return mask

    def encode(self, text: str) -> Ids:
        """Return the ids [n] of a text, without the tokens that open or close it."""
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return np.array(ids, dtype=np.int64)

    def decode(self, ids: Ids) -> str:
        """Return the text of ids, special tokens included, spaces untouched."""
        text = self.tokenizer.decode(
            [int(i) for i in ids],
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        return str(text)

    @cached_property
    def opening(self) -> Ids:
        """The ids that the tokenizer puts before every text: OPT's ``</s>``."""
        return opening_ids(self.tokenizer)

    @cached_property
    def closing(self) -> Ids:
        """The ids that the tokenizer puts after every text: T5's ``</s>``."""
        return closing_ids(self.tokenizer)

    def reachable(self, prompts: Iterable[Ids]) -> list[bool]:
        """Say of each prompt whether there is a text that the tokenizer turns into it.

        The whole prompt is decoded and encoded again. The tokens that the tokenizer
        itself puts first and last are left out where the prompt has them there: no
        text needs to contain them.
        """
        return [self._is_reachable(np.asarray(prompt)) for prompt in prompts]

    def _is_reachable(self, prompt: Ids) -> bool:
        body = self._without_the_tokenizer_s_own(prompt)
        if body.size and (body.min() < 0 or body.max() >= len(self.tokenizer)):
            return False
        return np.array_equal(self.encode(self.decode(body)), body)

    def _without_the_tokenizer_s_own(self, prompt: Ids) -> Ids:
        first, last = len(self.opening), len(prompt) - len(self.closing)
        if np.array_equal(prompt[last:], self.closing):
            prompt = prompt[:last]
        return (
            prompt[first:] if np.array_equal(prompt[:first], self.opening) else prompt
        )

    def _special_or_added(self) -> set[int]:
        return {
            *self.tokenizer.all_special_ids,
            *self.tokenizer.get_added_vocab().values(),
        }

    def _is(self, text: str) -> bool:
        whole = bool(text) and REPLACEMENT not in text
        return whole and (text.isascii() or not self.ascii_only)


def opening_ids(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """Return the ids that a tokenizer puts before every text, often none."""
    return _around(tokenizer)[0]


def closing_ids(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """Return the ids that a tokenizer puts after every text, often none."""
    return _around(tokenizer)[1]


def _around(tokenizer: PreTrainedTokenizerBase) -> tuple[Ids, Ids]:
    probe = "a"
    body = list(tokenizer(probe, add_special_tokens=False)["input_ids"])
    whole = list(tokenizer(probe)["input_ids"])
    start = _find(body, whole)
    ends = whole[:start], whole[start + len(body) :]
    first, last = (np.array(ids, dtype=np.int64) for ids in ends)
    return first, last


def _find(part: Sequence[int], whole: Sequence[int]) -> int:
    starts = range(len(whole) - len(part) + 1)
    return next((i for i in starts if whole[i : i + len(part)] == part), 0)
