"""What a subject writes after prompts, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

from harness.base import Ids
from harness.subject.subject import Subject

_REMEMBERED: WeakKeyDictionary[Subject, dict[tuple[bytes, int], Written]]
_REMEMBERED = WeakKeyDictionary()


class Written(NamedTuple):
    """What was written after a prompt."""

    text: str
    """Without special tokens, and without white space at its ends."""
    tokens: int
    """How many were written, the end token included."""
    finished: bool
    """Whether the end token was written."""


def write_texts(
    subject: Subject, prompts: Sequence[Ids], max_tokens: int
) -> list[Written]:
    """Return what the subject writes greedily after each prompt."""
    _, tokenizer = subject.huggingface()
    return [
        Written(
            tokenizer.decode(ids, skip_special_tokens=True).strip(),
            len(ids),
            len(ids) > 0 and int(ids[-1]) == tokenizer.eos_token_id,
        )
        for ids in subject.generate(prompts, max_tokens)
    ]


def write_text_once(subject: Subject, prompt_ids: Ids, max_tokens: int) -> str:
    """Return what is written after one prompt alone, remembered for the next time.

    All cells of a variant ask for the same clean summaries.
    """
    known = _REMEMBERED.setdefault(subject, {})
    key = prompt_ids.tobytes(), max_tokens
    if key not in known:
        (known[key],) = write_texts(subject, [prompt_ids], max_tokens)
    return known[key].text
