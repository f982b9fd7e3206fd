"""One adversarial example for people: what was changed, and what that did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from harness.records import SampleRow

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Split = Callable[[Sequence[int]], list[str]]
"""Return the text of each of a sequence of token ids; joined, they are its text."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a prompt."""

    text: str
    changed: bool
    """Whether it is only in this one of the two prompts."""


@dataclass(frozen=True)
class ReferenceToken:
    """A token of the reference, which no attack changes, and its loss in nats."""

    text: str
    clean: float | None
    """After the clean prompt; None where the row does not have it."""
    attacked: float | None
    """After the adversarial prompt; None where the row does not have it."""


@dataclass(frozen=True)
class ShownExample:
    """The two prompts of a row in pieces, and its reference token by token."""

    clean: list[Piece]
    attacked: list[Piece]
    """Empty for a row in error."""
    reference: list[ReferenceToken]


def show_example(row: SampleRow, split: Split | None = None) -> ShownExample:
    """Return what a row looks like.

    `split` is that of the subject's tokenizer (`token_splitter`): then what is marked
    as changed are tokens. Without it they are words, and of references, ids.
    """
    attacked_ids = row.adversarial_prompt_ids
    keys: tuple[Sequence[object], Sequence[object]]
    if split is not None:
        clean = split(row.clean_prompt_ids)
        attacked = [] if attacked_ids is None else split(attacked_ids)
        reference = split(row.reference_ids)
        keys = row.clean_prompt_ids, attacked_ids or []
    else:
        clean = _words(row.clean_text or "")
        attacked = _words(row.adversarial_text or "")
        reference = [f"<{token}>" for token in row.reference_ids]
        keys = clean, attacked
    same, kept = _in_both(*keys)
    losses = zip_longest(
        reference, row.clean_token_losses or (), row.adversarial_token_losses or ()
    )
    return ShownExample(
        list(_pieces(clean, same)),
        list(_pieces(attacked, kept)),
        [ReferenceToken(text or "", before, after) for text, before, after in losses],
    )


def token_splitter(variant: Path) -> Split | None:
    """Return the splitter of the subject in a variant's folder; None without one."""
    file = variant / "model" / "tokenizer.json"
    if not file.is_file():
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return lambda ids: _token_texts(tokenizer, ids)


def _token_texts(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    # A character may be spread over tokens: its text goes to the last of them.
    texts, before = [], ""
    for end in range(1, len(ids) + 1):
        whole = tokenizer.decode(list(ids[:end]), skip_special_tokens=False)
        known = whole if end == len(ids) else whole.rstrip("\ufffd")
        if not known.startswith(before):  # the tokenizer spells it otherwise now
            known = before
        texts.append(known[len(before) :])
        before = known
    return texts


def _words(text: str) -> list[str]:
    """Return words with the white space behind each."""
    kinds = ["".join(part) for _, part in groupby(text, str.isspace)]
    start = 1 if kinds and kinds[0].isspace() else 0
    words = [
        a + b
        for a, b in zip_longest(kinds[start::2], kinds[start + 1 :: 2], fillvalue="")
    ]
    return kinds[:start] + words


def _in_both(
    first: Sequence[object], second: Sequence[object]
) -> tuple[set[int], set[int]]:
    """Return the positions of either that are in the other, too, in the same order."""
    matcher = SequenceMatcher(None, list(first), list(second), autojunk=False)
    blocks = matcher.get_matching_blocks()
    return (
        {block.a + i for block in blocks for i in range(block.size)},
        {block.b + i for block in blocks for i in range(block.size)},
    )


def _pieces(texts: Sequence[str], same: set[int]) -> Iterator[Piece]:
    numbered = list(enumerate(texts))
    for changed, part in groupby(numbered, lambda one: one[0] not in same):
        yield Piece("".join(text for _, text in part), changed)
