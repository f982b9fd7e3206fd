"""Whether a subject gives the right answer after a prompt, clean or attacked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.base import Ids
from harness.data import Example
from harness.subject import Subject


@dataclass(frozen=True)
class Answered:
    """Whether the answer was right, and what each choice scored."""

    correct: bool
    scores: tuple[float | None, ...] = ()
    """Of each choice, its log-likelihood in nats for each character of its text; null
    where it is not finite. None for a last word."""


def answer(subject: Subject, example: Example, prompt_ids: Ids) -> Answered:
    """Ask for the answer of an example after a prompt, clean or attacked.

    A last word is right if each of its tokens is the arg-max, given those before it
    (lm-eval's acc of lambada). Of choices, that with the highest log-likelihood for
    each character is taken (lm-eval's acc_norm), the first one of equals. In float32,
    each pair alone.
    """
    if not example.choices:
        right = subject.argmax_correct([prompt_ids], example.reference_ids)
        return Answered(right[0])
    head = prompt_ids[: len(prompt_ids) - example.protected_end]
    losses = subject.exact_losses(
        [np.concatenate([head, choice.tail_ids]) for choice in example.choices],
        [choice.answer_ids for choice in example.choices],
    )
    found = (
        -float(loss) * len(choice.answer_ids) / choice.characters
        for loss, choice in zip(losses, example.choices, strict=True)
    )
    scores = tuple(score if math.isfinite(score) else None for score in found)
    return Answered(chosen(scores) == example.gold, scores)


def chosen(scores: Sequence[float | None]) -> int | None:
    """Return the first choice of the highest score; none where a score is missing."""
    if any(score is None for score in scores) or not scores:
        return None
    return max(range(len(scores)), key=lambda i: (scores[i], -i))
