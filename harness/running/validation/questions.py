"""What is asked of a fresh process about a frozen subject, and what its answers show.

A question goes to a script that takes nothing of the harness's scoring. An answer is
held against what a record or a row says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.base import Problem
from harness.data import Document, Example
from harness.records import Diagnostic, Estimate, Record, SampleRow
from harness.running.diagnostics.probes import SCORED_FLIPS, TOP_FLIPS, drawn_flips
from harness.running.diagnostics.replay import TOLERANCE_NATS
from harness.running.diagnostics.subject import (
    DIRECTIONS,
    LEAST_SLOPE_NATS,
    STEP,
    TRUTH_TOLERANCE,
    spearman,
)
from harness.running.validation.limits import TRACE_TOLERANCE_NATS, followed

TOKEN_TOLERANCE_NATS = 1e-2
"""How far the loss of one token may be off: its errors do not average out."""
ROUNDED_TOLERANCE_NATS = 2e-2
"""The same of a subject that searches below float32, which is measured with rounded
products: twice what they moved a token by at most, of 100,000."""
SHARE_TOLERANCE = 0.02
"""How far a share of gains may be off, of 128 or so, by rounding to zero."""
RANK_TOLERANCE = 0.1
"""How far a rank correlation of 16 losses may be off, where some are nearly equal."""
Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """One question, and what its answer shows to be wrong."""

    ask: str
    about: Mapping[str, Any]
    judge: Callable[[Answer], Iterator[str]]
    """Yields what the answer contradicts."""
    file: Path
    path: tuple[str, ...] = ()
    line: int | None = None

    def problems(self, answer: Answer) -> Iterator[Problem]:
        """Yield what the answer shows, or that there is none."""
        error = answer.get("error")
        for message in [error] if error else self.judge(answer):
            yield Problem(str(self.file), self.path, message, self.line)


# --- rows ---------------------------------------------------------------------------


def of_row(
    file: Path, line: int, row: SampleRow, dtype: str, *, universal: bool
) -> Iterator[Question]:
    """Ask for all losses of a row, along its trace too, its texts and its answers."""
    claims = [*_claims(row), *([] if universal else _steps(row, dtype))]
    prompts = [claim.prompt for claim in claims]
    known = {"file": file, "line": line}

    def losses(answer: Answer) -> Iterator[str]:
        for claim, found in zip(claims, answer["losses"], strict=True):
            yield from claim.complaints(found)
        yield from _answers(row, answer["right"])

    about = {"prompts": prompts, "reference": row.reference_ids}
    if prompts and row.reference_ids:
        yield Question("losses", about, losses, **known)  # type: ignore[arg-type]
    yield _texts(row, known)
    yield from _choices(row, known)


@dataclass(frozen=True)
class _Claim:
    """The loss of a row's reference after one prompt, as the row says."""

    name: str
    prompt: list[int]
    loss: float
    tokens: list[float] | None = None
    tolerance: float = TOLERANCE_NATS

    def complaints(self, found: Sequence[float]) -> Iterator[str]:
        """Say how far the replayed losses are off."""
        mean = math.fsum(found) / len(found)
        if not abs(mean - self.loss) <= self.tolerance:
            off = abs(mean - self.loss)
            far = f"{off:.3g} nats/token off the record"
            yield f"{self.name} is {self.loss}, and replayed {mean}: {far}"
        elif self.tokens is not None:
            pairs = zip(found, self.tokens, strict=False)
            off = max((abs(a - b) for a, b in pairs), default=0.0)
            if not off <= TOKEN_TOLERANCE_NATS:
                yield f"a token's loss of {self.name} is {off:.3g} nats off the record"


def _claims(row: SampleRow) -> Iterator[_Claim]:
    if row.clean_loss is not None:
        yield _Claim(
            "clean_loss", row.clean_prompt_ids, row.clean_loss, row.clean_token_losses
        )
    if row.adversarial_prompt_ids is not None and row.adversarial_loss is not None:
        tokens = row.adversarial_token_losses
        ids = row.adversarial_prompt_ids
        yield _Claim("adversarial_loss", ids, row.adversarial_loss, tokens)
    for kind in ("checkpoints", "replicates"):
        for i, one in enumerate(getattr(row, kind)):
            name = f"{kind}.{i}.adversarial_loss"
            yield _Claim(name, one.adversarial_prompt_ids, one.adversarial_loss)


def _steps(row: SampleRow, dtype: str) -> Iterator[_Claim]:
    """Return what a trace says of the prompts that it leads over."""
    steps = [x for x in row.trace if "position" in x or "positions" in x]
    same = len(row.adversarial_prompt_ids or ()) == len(row.clean_prompt_ids)
    reached = (followed(row.clean_prompt_ids, steps) if same else None) or []
    tolerance = TRACE_TOLERANCE_NATS.get(dtype, max(TRACE_TOLERANCE_NATS.values()))
    for i, (step, ids) in enumerate(zip(steps, reached[1:], strict=False)):
        loss = step.get("loss")
        if isinstance(loss, float):
            name = f"step {i + 1} in its trace"
            yield _Claim(name, ids, loss, tolerance=tolerance + TOLERANCE_NATS)


def _answers(row: SampleRow, right: Sequence[bool]) -> Iterator[str]:
    """Compare last words; `right` begins with the clean and the attacked prompt's."""
    if row.choices is not None or row.answer_correct_clean is None:
        return
    stated = [row.answer_correct_clean, row.answer_correct_adversarial]
    if row.adversarial_prompt_ids is not None and [*right[:2]] != stated:
        yield f"its answers are right {stated}, and replayed {[*right[:2]]}"


def _texts(row: SampleRow, known: Mapping[str, Any]) -> Question:
    prompts = [row.clean_prompt_ids]
    texts: list[str | None] = [row.clean_text]
    if row.adversarial_prompt_ids is not None:
        prompts.append(row.adversarial_prompt_ids)
        texts.append(row.adversarial_text)

    def judge(answer: Answer) -> Iterator[str]:
        names = ("clean_text", "adversarial_text")
        for name, stated, found in zip(names, texts, answer["texts"], strict=False):
            if stated is not None and stated != found:
                yield f"{name} is not the text of its token ids"
        if len(prompts) > 1 and row.text_reachable != answer["reachable"][1]:
            found = answer["reachable"][1]
            yield f"text_reachable is {row.text_reachable}, but tokenized again {found}"

    return Question("texts", {"ids": prompts}, judge, **known)


def _choices(row: SampleRow, known: Mapping[str, Any]) -> Iterator[Question]:
    if not row.choices or row.gold is None:
        return
    closing = len(row.choices[row.gold].tail_ids)
    after = row.adversarial_prompt_ids or row.clean_prompt_ids
    for choice in row.choices:
        prompts = [
            ids[: len(ids) - closing] + choice.tail_ids
            for ids in (row.clean_prompt_ids, after)
        ]
        stated = (choice.clean_score, choice.adversarial_score)
        tolerance = TOLERANCE_NATS * len(choice.answer_ids) / choice.characters

        def judge(
            answer: Answer,
            stated: tuple[float | None, ...] = stated,
            characters: int = choice.characters,
            tolerance: float = tolerance,
        ) -> Iterator[str]:
            for score, losses in zip(stated, answer["losses"], strict=True):
                found = -math.fsum(losses) / characters
                if score is not None and not abs(found - score) <= tolerance:
                    yield f"a choice scores {score}, and replayed {found}"

        about = {"prompts": prompts, "reference": choice.answer_ids}
        yield Question("losses", about, judge, **known)


def examples_differ(row: SampleRow, expected: Mapping[str, Example]) -> str | None:
    """Say in what a row is not about the example that its corpus gives."""
    example = expected.get(row.example_id)
    if example is None:
        return f"{row.example_id!r} is no example that the corpus gives"
    stated = {
        "document_id": example.document_id,
        "cluster": example.cluster,
        "clean_prompt_ids": example.prompt_ids.tolist(),
        "reference_ids": example.reference_ids.tolist(),
    }
    others = [name for name, value in stated.items() if getattr(row, name) != value]
    if not others:
        return None
    return f"not those of the example that the corpus gives: {', '.join(others)}"


# --- variants -----------------------------------------------------------------------


def of_document(
    file: Path,
    line: int,
    row: Mapping[str, Any],
    document: Document,
    options: Any,
    dtype: str,
) -> Question:
    """Ask for tokens and nats of a document, scored in windows.

    Its subject searches in `dtype`.
    """

    def judge(answer: Answer) -> Iterator[str]:
        if row["tokens"] != answer["tokens"]:
            yield f"tokens is {row['tokens']}, and replayed {answer['tokens']}"
        tolerance = TOLERANCE_NATS * answer["tokens"]
        if dtype != "float32":  # few tokens hardly average out what rounding does
            rounded = ROUNDED_TOLERANCE_NATS * math.sqrt(answer["tokens"])
            tolerance = max(tolerance, rounded)
        nats, found = row["nats"], answer["nats"]
        if nats is not None and not abs(nats - found) <= tolerance:
            yield f"nats is {nats}, and replayed {found}"
        size = len(document.text.encode())
        if row["bytes"] != size:
            yield f"bytes is {row['bytes']}, and the document has {size}"

    about = {
        "text": document.text,
        "context": options.context,
        "stride": options.stride,
    }
    return Question("rolling", about, judge, file, line=line)


def of_held_out(
    file: Path, stated: Estimate, blocks: Any, dtype: str
) -> list[Question]:
    """Ask for the held-out loss of a trained subject, block by block."""
    means: list[float] = []
    tolerance = TRACE_TOLERANCE_NATS.get(dtype, TOLERANCE_NATS) + TOLERANCE_NATS

    def judge(answer: Answer) -> Iterator[str]:
        means.append(float(np.mean(answer["losses"][0])))
        if len(means) < len(blocks) or stated.value is None:
            return
        found = float(np.mean(means))
        if abs(found - stated.value) > tolerance:
            yield f"loss_after is {stated.value}, and replayed {found}"

    return [
        Question(
            "losses",
            {"prompts": [[int(block[0])]], "reference": [int(x) for x in block[1:]]},
            judge,
            file,
            ("recovery", "loss_after"),
        )
        for block in blocks
    ]


def of_diagnostics(
    file: Path,
    record: Record,
    examples: Mapping[str, Example],
    prompts: Mapping[str, list[int] | None],
    allowed: Any,
) -> Iterator[Question]:
    """Ask for gradients, where the record says how good they are.

    `prompts` are those that an attack returned; a variant is asked at its examples'.
    """
    answers = {answer.id: answer for answer in record.diagnostics}
    values = {
        name: _by_example(answers[name])
        for name in ("gradient_health", "gradient_truth", "first_order_fidelity")
        if name in answers
    }
    for name in values.get("gradient_health", {}):
        example = examples.get(name)
        if example is None:
            continue  # which is said of its row
        ids = prompts.get(name, example.prompt_ids.tolist())
        if ids is None:
            continue
        asked = Example(**{**vars(example), "prompt_ids": np.array(ids)})
        yield _flips(file, asked, {k: v.get(name) for k, v in values.items()}, allowed)


def _by_example(answer: Diagnostic) -> dict[str, float | None]:
    return {x["example"]: x["value"] for x in answer.measured.get("values", ())}


def _flips(
    file: Path, example: Example, stated: Mapping[str, float | None], allowed: Any
) -> Question:
    flips = [[*flip] for flip in drawn_flips(allowed, example)]

    def judge(answer: Answer) -> Iterator[str]:
        gains, losses = np.array(answer["gains"]), np.array(answer["losses"])
        found = {
            "gradient_health": float(((gains == 0) | ~np.isfinite(gains)).mean()),
            "gradient_truth": answer["untruth"],
            "first_order_fidelity": spearman(gains[: len(losses)], losses),
        }
        for name, tolerance in _TOLERANCES.items():
            own, other = stated.get(name), found[name]
            if None not in (own, other) and abs(own - other) > tolerance:
                yield f"{name} at {example.id} is {own}, and replayed {other}"

    about = {
        "prompt": example.prompt_ids.tolist(),
        "reference": example.reference_ids.tolist(),
        "flips": flips,
        "free": np.flatnonzero(example.free).tolist(),
        "scored": SCORED_FLIPS,
        "directions": DIRECTIONS,
        "top": TOP_FLIPS,
        "step": STEP,
        "floor": LEAST_SLOPE_NATS,
    }
    return Question("flips", about, judge, file, ("diagnostics",))


_TOLERANCES = {
    "gradient_health": SHARE_TOLERANCE,
    "gradient_truth": TRUTH_TOLERANCE,
    "first_order_fidelity": RANK_TOLERANCE,
}
