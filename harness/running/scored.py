"""The results of an attack, scored from scratch: a row for each example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.api import Adversarial
from harness.base import Ids
from harness.data import Example
from harness.records import ChoiceRow, SampleRow, rouge
from harness.running.answers import answer
from harness.subject import Subject, write_text_once, write_texts

OVERWRITTEN = "the attack changed tokens that it must leave as they are"


@dataclass(frozen=True)
class Rescorer:
    """Scores prompts on a subject in fresh passes, each pair alone, in float32."""

    subject: Subject
    rouge_tokens: int | None = None
    """How many tokens the subject may write to be compared with a reference text."""

    def scored(self, example: Example, found: Adversarial, share: float) -> SampleRow:
        """Return the row of an attacked example.

        `share` is the multiple of its stated budget that the attack was given.
        """
        held, others = dict(sorted(found.checkpoints.items())), found.replicates
        prompts = [example.prompt_ids, found.prompt_ids, *held.values(), *others]
        if not all(_intact(example, prompt) for prompt in prompts):
            return self.failed(example, OVERWRITTEN)
        scored = self._scored(prompts, example.reference_ids)
        if not all(math.isfinite(loss) for _, loss in scored):
            losses = ", ".join(str(loss) for _, loss in scored)
            what = "clean, attacked and at checkpoints"
            return self.failed(example, f"a loss is not finite ({what}: {losses})")
        (before, clean), (after, adversarial), *rest = scored
        other = [
            {
                "adversarial_prompt_ids": prompt.tolist(),
                "adversarial_loss": loss,
                "delta_loss": loss - clean,
            }
            for prompt, (_, loss) in zip(prompts[2:], rest, strict=True)
        ]
        unchanged = found.prompt_ids.tolist() == example.prompt_ids.tolist()
        return scored_row(
            example,
            status="unchanged" if unchanged else "attacked",
            adversarial_prompt_ids=found.prompt_ids.tolist(),
            clean_loss=clean,
            adversarial_loss=adversarial,
            text_reachable=self.subject.reachable([found.prompt_ids])[0],
            adversarial_text=self.subject.decode(found.prompt_ids),
            trace=[dict(step) for step in found.trace],
            share=share,
            checkpoints=[
                {"share": part * share, **one}
                for part, one in zip(held, other, strict=False)
            ],
            replicates=other[len(held) :],
            clean_text=self.subject.decode(example.prompt_ids),
            clean_token_losses=before,
            adversarial_token_losses=after,
            **self._beyond_loss(example, found.prompt_ids),
        )

    def failed(self, example: Example, error: str) -> SampleRow:
        """Return the row of an example for which the attack has no usable result.

        Answers and summaries in it are those after the clean prompt.
        """
        [(tokens, clean)] = self._scored([example.prompt_ids], example.reference_ids)
        known = math.isfinite(clean)
        return failed_row(
            example,
            clean_loss=clean if known else None,
            error=error,
            clean_text=self.subject.decode(example.prompt_ids),
            clean_token_losses=tokens if known else None,
            **self._beyond_loss(example, example.prompt_ids),
        )

    def _scored(
        self, prompts: Sequence[Ids], reference: Ids
    ) -> list[tuple[list[float], float]]:
        """Return the losses of a reference's tokens after each prompt, and their mean.

        A prompt that comes up twice is scored once.
        """
        distinct = {prompt.tobytes(): prompt for prompt in prompts}
        losses = self.subject.exact_token_losses([*distinct.values()], reference)
        known = dict(zip(distinct, losses, strict=True))
        found = [known[prompt.tobytes()] for prompt in prompts]
        return [(tokens.tolist(), float(tokens.mean())) for tokens in found]

    def _beyond_loss(self, example: Example, prompt_ids: Ids) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if example.answer:
            found |= self._answers(example, prompt_ids)
        if self.rouge_tokens is not None and example.reference_text is not None:
            found |= self._summaries(example, prompt_ids)
        return found

    def _answers(self, example: Example, prompt_ids: Ids) -> dict[str, Any]:
        clean = answer(self.subject, example, example.prompt_ids)
        after = answer(self.subject, example, prompt_ids)
        found = {
            "answer_correct_clean": clean.correct,
            "answer_correct_adversarial": after.correct,
        }
        if not example.choices:
            return found
        choices = [
            ChoiceRow(
                tail_ids=choice.tail_ids.tolist(),
                answer_ids=choice.answer_ids.tolist(),
                characters=choice.characters,
                clean_score=before_score,
                adversarial_score=after_score,
            )
            for choice, before_score, after_score in zip(
                example.choices, clean.scores, after.scores, strict=True
            )
        ]
        return {**found, "choices": choices, "gold": example.gold}

    def _summaries(self, example: Example, prompt_ids: Ids) -> dict[str, Any]:
        """Write a summary after each prompt, that prompt alone."""
        assert self.rouge_tokens is not None
        reference = str(example.reference_text)
        clean = write_text_once(self.subject, example.prompt_ids, self.rouge_tokens)
        after = clean
        if not np.array_equal(prompt_ids, example.prompt_ids):
            ((after, _, _),) = write_texts(
                self.subject, [prompt_ids], self.rouge_tokens
            )
        return {
            "reference_text": reference,
            "clean_summary": clean,
            "adversarial_summary": after,
            "rouge_clean": rouge(reference, clean)["rougeL"],
            "rouge_adversarial": rouge(reference, after)["rougeL"],
        }


def scored_row(example: Example, **found: Any) -> SampleRow:
    """Return the row of an attacked example: losses, ids, text and trace."""
    delta = found["adversarial_loss"] - found["clean_loss"]
    return SampleRow(**_given(example), **found, delta_loss=delta)


def failed_row(
    example: Example, *, clean_loss: float | None, error: str, **beyond: Any
) -> SampleRow:
    """Return the row of an example for which the attack has no usable result.

    `beyond` are the fields about the clean prompt, answers and summaries.
    """
    return SampleRow(
        **_given(example),
        status="error",
        adversarial_prompt_ids=None,
        clean_loss=clean_loss,
        adversarial_loss=None,
        delta_loss=None,
        text_reachable=None,
        adversarial_text=None,
        trace=[],
        error=error,
        **beyond,
    )


def _given(example: Example) -> dict[str, Any]:
    return {
        "example_id": example.id,
        "document_id": example.document_id,
        "cluster": example.cluster,
        "clean_prompt_ids": [int(token) for token in example.prompt_ids],
        "reference_ids": [int(token) for token in example.reference_ids],
    }


def _intact(example: Example, prompt_ids: Ids) -> bool:
    """Say whether the protected tokens stand where they must."""
    parts = (
        (example.prompt_ids[: example.protected], prompt_ids[: example.protected]),
        (_end(example, example.prompt_ids), _end(example, prompt_ids)),
    )
    return all(np.array_equal(before, after) for before, after in parts)


def _end(example: Example, prompt_ids: Ids) -> Ids:
    return prompt_ids[max(0, len(prompt_ids) - example.protected_end) :]
