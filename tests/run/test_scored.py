"""Rows of attacked examples: answers asked anew, protected tokens left alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from harness.api.attacks import Adversarial
from harness.data.document import Choice, Example
from harness.records.rouge_scores import rouge
from harness.records.samples import SampleRow
from harness.running.answers import answer
from harness.running.scored import OVERWRITTEN, Rescorer
from harness.running.validation.samples import _row_complaints
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
    row = Rescorer(subject).scored(example, found, share=1.0)
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
    row = Rescorer(subject).scored(example, attacked(example, _2=99), share=1.0)
    name = f"answer_correct_{when}"
    wrong = row.model_copy(update={name: not getattr(row, name)})
    (complaint,) = _row_complaints(wrong, set())
    assert complaint == f"{name} is not what the scores of the choices say"


@pytest.mark.parametrize("place", ["_0", "_5"])
def test_an_attack_that_writes_over_protected_tokens_has_failed(
    subject, example, place
):
    row = Rescorer(subject).scored(example, attacked(example, **{place: 99}), share=1.0)
    assert (row.status, row.error, row.delta_loss) == ("error", OVERWRITTEN, None)
    assert row.answer_correct_clean == row.answer_correct_adversarial
    assert len(row.choices) == 3


@pytest.mark.parametrize("family", ["gpt_neox", "opt", "t5"])
def test_every_prompt_of_a_row_is_scored_as_transformers_scores_it(family):
    subject = tiny_subject(family)
    example = Example("c/1", "c/1", IDS[:6], IDS[6:10])
    first, second, third, other = (
        np.where(np.arange(6) == i, 60 + i, IDS[:6]) for i in range(2, 6)
    )
    found = Adversarial(
        example.id,
        third,
        checkpoints={0.125: example.prompt_ids, 0.25: first, 0.5: second},
        replicates=[other],
    )
    with subject.metered() as meter:
        row = Rescorer(subject).scored(example, found, share=2)
    assert meter.sequences_forward == 5  # each distinct prompt once

    model, tokenizer = subject.huggingface()
    ids = [example.prompt_ids, third, example.prompt_ids, first, second, other]
    tokens = [
        _token_losses(model, example.reference_ids, prompt, seq2seq=family == "t5")
        for prompt in ids
    ]
    clean, attacked_loss, *others = (float(x.mean()) for x in tokens)
    assert row.share == 2
    assert [one.share for one in row.checkpoints] == [0.25, 0.5, 1]
    stored = [row, *row.checkpoints, *row.replicates]
    assert [x.adversarial_prompt_ids for x in stored] == [x.tolist() for x in ids[1:]]
    assert [x.adversarial_loss for x in stored] == pytest.approx(
        [attacked_loss, *others], abs=1e-5
    )
    assert [x.delta_loss for x in stored] == pytest.approx(
        [x - clean for x in (attacked_loss, *others)], abs=1e-5
    )
    np.testing.assert_allclose(row.clean_token_losses, tokens[0], atol=1e-5)
    np.testing.assert_allclose(row.adversarial_token_losses, tokens[1], atol=1e-5)
    assert np.mean(row.adversarial_token_losses) == row.adversarial_loss
    assert row.clean_text == tokenizer.decode(example.prompt_ids)
    assert list(_row_complaints(row, set())) == []


def _token_losses(model, reference, prompt, *, seq2seq):
    labels = torch.tensor(reference)[None]
    with torch.no_grad():
        if seq2seq:
            logits = model(input_ids=torch.tensor(prompt)[None], labels=labels).logits
        else:
            whole = torch.cat([torch.tensor(prompt)[None], labels], dim=1)
            logits = model(whole).logits[:, len(prompt) - 1 : -1]
    return -logits.log_softmax(dim=-1).gather(2, labels[..., None])[0, :, 0].numpy()


@pytest.mark.parametrize("field", ["checkpoints", "replicates"])
def test_protected_tokens_count_in_every_prompt_of_a_row(subject, example, field):
    broken = example.prompt_ids.copy()
    broken[0] = 99
    found = dataclasses.replace(
        attacked(example, _2=99),
        **{field: {0.5: broken} if field == "checkpoints" else [broken]},
    )
    row = Rescorer(subject).scored(example, found, share=1.0)
    assert (row.status, row.error) == ("error", OVERWRITTEN)
    exact = subject.exact_losses([example.prompt_ids], example.reference_ids)
    assert row.clean_loss == exact[0]  # an error keeps what is known without it
    assert row.clean_token_losses is not None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"share": 0.5}, "do not ascend: [0.25, 0.5, 0.5]"),
        ({"checkpoints.0.delta_loss": 9.0}, "checkpoints.0: delta_loss is 9.0, but"),
        ({"replicates.0.delta_loss": 9.0}, "replicates.0: delta_loss is 9.0, but"),
        (
            {"checkpoints.1.adversarial_loss": 9.0, "checkpoints.1.delta_loss": 7.0},
            "has another loss elsewhere",
        ),
        ({"clean_token_losses": [1.0, 3.5]}, "clean_loss is 2.0, but its tokens'"),
        ({"adversarial_token_losses": [3.0]}, "are not as many as the reference's"),
    ],
)
def test_what_does_not_hang_together_in_a_row_is_told(
    subject, example, change, complaint
):
    row = {
        **Rescorer(subject).scored(example, attacked(example, _2=99), 1).model_dump(),
        "choices": None,
        "clean_loss": 2.0,
        "adversarial_loss": 3.0,
        "delta_loss": 1.0,
        "clean_token_losses": [1.0, 3.0],
        "adversarial_token_losses": [2.5, 3.5],
    }
    clean = {"adversarial_prompt_ids": row["clean_prompt_ids"], "adversarial_loss": 2.0}
    own = {
        "adversarial_prompt_ids": row["adversarial_prompt_ids"],
        "adversarial_loss": 3.0,
    }
    row["checkpoints"] = [
        {"share": 0.25, **clean, "delta_loss": 0.0},
        {"share": 0.5, **own, "delta_loss": 1.0},
    ]
    row["replicates"] = [{**own, "delta_loss": 1.0}]
    assert list(_row_complaints(SampleRow.model_validate(row), set())) == []
    for path, value in change.items():
        *way, last = path.split(".")
        place = row
        for key in way:
            place = place[int(key) if key.isdigit() else key]
        place[last] = value
    [told] = _row_complaints(SampleRow.model_validate(row), set())
    assert complaint in told


def test_a_trigger_between_protected_tokens_is_no_failure(subject, example):
    ids = np.insert(example.prompt_ids, 1, [99, 98])
    row = Rescorer(subject).scored(example, Adversarial(example.id, ids), share=1.0)
    assert row.status == "attacked"


def test_a_last_word_is_right_or_not_and_has_no_choices(subject, example):
    word = dataclasses.replace(example, choices=(), gold=None)
    row = Rescorer(subject).scored(word, attacked(word, _2=99), share=1.0)
    assert row.choices is None
    assert row.answer_correct_clean in (True, False)


def test_examples_of_a_loss_ask_for_no_answer(subject, example):
    plain = dataclasses.replace(example, answer=False)
    row = Rescorer(subject).scored(plain, attacked(plain, _2=99), share=1.0)
    assert (row.choices, row.gold, row.answer_correct_clean) == (None, None, None)


@pytest.mark.parametrize("family", ["gpt_neox", "t5"])
def test_summaries_before_and_after_are_compared_with_the_reference(family):
    subject = tiny_subject(family)
    example = Example(
        "c/1", "c/1", IDS[:6], IDS[6:9], reference_text="the cat sat on the mat"
    )
    found = Adversarial(example.id, IDS[1:7])
    assert Rescorer(subject).scored(example, found, share=1.0).rouge_clean is None
    row = Rescorer(subject, rouge_tokens=5).scored(example, found, share=1.0)
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
