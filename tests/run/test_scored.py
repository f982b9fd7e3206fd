"""Rows of attacked examples: answers asked anew, protected tokens left alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from harness.api.attacks import Adversarial
from harness.data.document import Choice, Example
from harness.records.rouge_scores import rouge
from harness.run.answers import answer
from harness.run.scored import OVERWRITTEN, Rescorer
from harness.run.validation.samples import _row_complaints
from harness.testing import tiny_subject

pytestmark = pytest.mark.transformers5
IDS = np.arange(40, 52)


@pytest.fixture(scope="module")
def subject():
    return tiny_subject()


@pytest.fixture
def example() -> Example:
    choices = tuple(
        Choice(tail_ids=IDS[8 + i : 9 + i], answer_ids=IDS[i : i + 2], characters=3)
        for i in range(3)
    )
    return Example(
        "c/1",
        "c/1",
        prompt_ids=np.concatenate([IDS[:5], choices[1].tail_ids]),
        reference_ids=choices[1].answer_ids,
        protected=1,
        protected_end=1,
        choices=choices,
        gold=1,
        answer=True,
    )


def attacked(example: Example, **written: int) -> Adversarial:
    ids = example.prompt_ids.copy()
    for place, token in written.items():
        ids[int(place[1:])] = token
    return Adversarial(example.id, ids)


def test_a_row_says_what_each_choice_scored(subject, example):
    found = attacked(example, _2=99)
    row = Rescorer(subject).scored(example, found)
    before = answer(subject, example, example.prompt_ids)
    after = answer(subject, example, found.prompt_ids)
    assert before.scores != after.scores
    assert [c.clean_score for c in row.choices] == list(before.scores)
    assert [c.adversarial_score for c in row.choices] == list(after.scores)
    assert row.answer_correct_clean == before.correct
    assert row.answer_correct_adversarial == after.correct
    assert row.gold == 1
    assert list(_row_complaints(row, set())) == []


@pytest.mark.parametrize("when", ["clean", "adversarial"])
def test_an_answer_that_the_scores_deny_is_found(subject, example, when):
    row = Rescorer(subject).scored(example, attacked(example, _2=99))
    name = f"answer_correct_{when}"
    wrong = row.model_copy(update={name: not getattr(row, name)})
    (complaint,) = _row_complaints(wrong, set())
    assert complaint == f"{name} is not what the scores of the choices say"


@pytest.mark.parametrize("place", ["_0", "_5"])
def test_an_attack_that_writes_over_protected_tokens_has_failed(
    subject, example, place
):
    row = Rescorer(subject).scored(example, attacked(example, **{place: 99}))
    assert (row.status, row.error, row.delta_loss) == ("error", OVERWRITTEN, 0.0)
    assert row.answer_correct_clean == row.answer_correct_adversarial
    assert len(row.choices) == 3


def test_a_trigger_between_protected_tokens_is_no_failure(subject, example):
    ids = np.insert(example.prompt_ids, 1, [99, 98])
    row = Rescorer(subject).scored(example, Adversarial(example.id, ids))
    assert row.status == "attacked"


def test_a_last_word_is_right_or_not_and_has_no_choices(subject, example):
    word = dataclasses.replace(example, choices=(), gold=None)
    row = Rescorer(subject).scored(word, attacked(word, _2=99))
    assert row.choices is None
    assert row.answer_correct_clean in (True, False)


def test_examples_of_a_loss_ask_for_no_answer(subject, example):
    plain = dataclasses.replace(example, answer=False)
    row = Rescorer(subject).scored(plain, attacked(plain, _2=99))
    assert (row.choices, row.gold, row.answer_correct_clean) == (None, None, None)


@pytest.mark.parametrize("family", ["gpt_neox", "t5"])
def test_summaries_before_and_after_are_compared_with_the_reference(family):
    subject = tiny_subject(family)
    example = Example(
        "c/1", "c/1", IDS[:6], IDS[6:9], reference_text="the cat sat on the mat"
    )
    found = Adversarial(example.id, IDS[1:7])
    assert Rescorer(subject).scored(example, found).rouge_clean is None
    row = Rescorer(subject, rouge_tokens=5).scored(example, found)
    written = subject.generate([example.prompt_ids, found.prompt_ids], 5)
    tokenizer = subject.huggingface()[1]
    texts = [tokenizer.decode(x, skip_special_tokens=True).strip() for x in written]
    assert [row.clean_summary, row.adversarial_summary] == texts
    assert row.rouge_clean == rouge(example.reference_text, texts[0])["rougeL"]
    assert row.rouge_adversarial == rouge(example.reference_text, texts[1])["rougeL"]
    assert list(_row_complaints(row, set())) == []
    wrong = row.model_copy(update={"rouge_clean": 0.77})
    (complaint,) = _row_complaints(wrong, set())
    assert complaint.startswith("rouge_clean is 0.77, but its summary gives")
    failed = Rescorer(subject, rouge_tokens=5).failed(example, "no luck")
    assert failed.adversarial_summary == failed.clean_summary == texts[0]
