"""What a replay holds against a row or a record: each claim by itself."""

import ast
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.data import Document, Example
from harness.records import Estimate
from harness.records.samples import Checkpoint, ChoiceRow, Replicate
from harness.running.diagnostics import plain_replay
from harness.running.diagnostics.subject import spearman
from harness.running.validation import questions
from tests.run_fixtures import sample_row

FILE = Path("samples.jsonl")
ROW = sample_row(1, 2.0, 1.0)
CLEAN, AFTER = ROW.clean_prompt_ids, ROW.adversarial_prompt_ids
OTHER = {"adversarial_prompt_ids": [1, 2, 3], "adversarial_loss": 2.5}
FULL = ROW.model_copy(
    update={
        "clean_token_losses": [1.0, 2.0, 2.0, 3.0],
        "adversarial_token_losses": [3.0] * 4,
        "checkpoints": [Checkpoint(**OTHER, delta_loss=0.5, share=0.5)],
        "replicates": [Replicate(**OTHER, delta_loss=0.5)],
        "trace": [
            {"position": 0, "token": 7, "loss": 2.25},
            {"position": 7, "token": 999, "loss": 3.0},
        ],
        "clean_text": "before",
        "answer_correct_clean": True,
        "answer_correct_adversarial": False,
    }
)
CHOSEN = FULL.model_copy(
    update={
        "gold": 0,
        "choices": [
            ChoiceRow(
                tail_ids=[],
                answer_ids=[5, 6],
                characters=4,
                clean_score=-1.0,
                adversarial_score=-2.0,
            )
        ],
    }
)


def honest(question):
    """Answer as a process that finds just what the row says."""
    if question.ask == "texts":
        texts = ["before", "some text"]
        return {"texts": texts, "reachable": [True, FULL.text_reachable]}
    if question.about["reference"] == [5, 6]:
        return {"losses": [[2.0, 2.0], [4.0, 4.0]]}
    means = [[1.0, 2.0, 2.0, 3.0], [3.0] * 4, [2.5] * 4, [2.5] * 4, [2.25] * 4]
    return {"losses": [*means, [3.0] * 4], "right": [True, False]}


def told(row, change=lambda question, answer: None, *, universal=False):
    """Return what is wrong with a row by answers that `change` was at."""
    found = []
    for question in questions.of_row(FILE, 3, row, "float32", universal=universal):
        answer = honest(question)
        change(question, answer)
        found += question.problems(answer)
    assert {(problem.file, problem.line) for problem in found} <= {(str(FILE), 3)}
    return [problem.message for problem in found]


def loss(place, by=0.01, *, of=4):
    """Return what shifts the losses after one of the prompts."""

    def change(question, answer):
        if len(question.about.get("reference", ())) == of:
            answer["losses"][place] = [x + by for x in answer["losses"][place]]

    return change


def one_token(question, answer):
    """Let two tokens' losses be others, and their mean the same."""
    if len(question.about.get("reference", ())) == 4:
        answer["losses"][0] = [1.5, 1.5, 2.0, 3.0]


def says(ask, key, place, value):
    """Return what changes a part of the answer to a question."""

    def change(question, answer):
        if question.ask == ask and key in answer:
            answer[key][place] = value

    return change


CLAIMS = {
    "clean_loss is 2.0, and replayed 2.01": loss(0),
    "adversarial_loss is 3.0, and replayed 3.01": loss(1),
    "checkpoints.0.adversarial_loss is 2.5, and": loss(2),
    "replicates.0.adversarial_loss is 2.5, and": loss(3),
    "step 1 in its trace is 2.25, and replayed": loss(4),
    "a token's loss of clean_loss is 0.5 nats off": one_token,
    "its answers are right [True, False], and": says("losses", "right", 1, True),
    "clean_text is not the text of its token ids": says("texts", "texts", 0, "?"),
    "adversarial_text is not the text of its": says("texts", "texts", 1, "?"),
    "text_reachable is True, but tokenized again": says("texts", "reachable", 1, False),
}


def test_an_honest_row_is_left_alone():
    assert told(FULL) == told(CHOSEN) == []


@pytest.mark.parametrize("sentence", CLAIMS)
def test_each_claim_of_a_row_is_held_against_its_answer(sentence):
    (message,) = told(FULL, CLAIMS[sentence])
    assert message.startswith(sentence)


def test_losses_that_are_no_numbers_are_off():
    messages = told(FULL, loss(1, float("nan")))
    assert messages[0].startswith("adversarial_loss is 3.0, and replayed nan")


def test_the_trace_of_a_trigger_leads_over_no_prompts_of_its_own():
    (question, *_) = questions.of_row(FILE, 3, FULL, "float32", universal=True)
    assert question.about["prompts"] == [CLEAN, AFTER, [1, 2, 3], [1, 2, 3]]


def test_what_choices_score_is_held_against_their_answers():
    (message,) = told(CHOSEN, loss(1, of=2))
    assert message == "a choice scores -2.0, and replayed -2.005"


def test_a_question_without_an_answer_is_a_problem():
    question = next(questions.of_row(FILE, 3, FULL, "float32", universal=False))
    (problem,) = question.problems({"error": "cannot be scored: out of memory"})
    assert "cannot be scored" in str(problem)


EXAMPLE = Example(
    "test/1", "1", np.array(CLEAN), np.array(ROW.reference_ids), cluster=None
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"example_id": "test/2"}, "'test/2' is no example that the corpus gives"),
        ({"document_id": "2"}, "not those of the example that the corpus gives: doc"),
        ({"cluster": "a"}, "gives: cluster"),
        ({"clean_prompt_ids": [1]}, "gives: clean_prompt_ids"),
        ({"reference_ids": [1], "document_id": "2"}, "document_id, reference_ids"),
    ],
)
def test_rows_are_about_the_examples_of_their_corpus(changes, said):
    row = ROW.model_copy(update=changes)
    found = questions.examples_differ(row, {"test/1": EXAMPLE})
    assert found is None if said is None else said in found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"tokens": 4}, "tokens is 4, and replayed 3"),
        ({"nats": 5.9}, "nats is 5.9, and replayed 6.0"),
        ({"nats": 5.99}, "nats is 5.99, and replayed 6.0"),
        ({"bytes": 6}, "bytes is 6, and the document has 5"),
    ],
)
def test_documents_of_a_metric_are_scored_and_measured(changes, said):
    row = {"tokens": 3, "nats": 6.0, "bytes": 5} | changes
    options = SimpleNamespace(context=8, stride=None)
    document = Document("0", "café")
    asked = questions.of_document(FILE, 1, row, document, options, "float32")
    found = [x.message for x in asked.problems({"tokens": 3, "nats": 6.0})]
    assert found == ([] if said is None else [said])


@pytest.mark.parametrize(
    ("tokens", "off", "problems"),
    [
        # A token of 100,000 was 1.1e-2 nats off, and documents 1.2e-4 nats/token.
        (1, 1.1e-2, 0),
        (1, 3e-2, 1),
        (9, 9 * 5e-3, 0),
        (9, 9 * 1e-2, 1),
        (2000, 2000 * 1.2e-4, 0),
        (2000, 2000 * 1.1e-3, 1),
        (2000, float("nan"), 1),
    ],
)
def test_short_documents_may_be_off_by_rounded_products(tokens, off, problems):
    row = {"tokens": tokens, "nats": 6.0, "bytes": 5}
    options = SimpleNamespace(context=8, stride=None)
    document = Document("0", "café")
    asked = questions.of_document(FILE, 1, row, document, options, "bfloat16")
    answer = {"tokens": tokens, "nats": 6.0 + off}
    assert len([*asked.problems(answer)]) == problems


@pytest.mark.parametrize(("mean", "problems"), [(2.0, 0), (2.1, 1)])
def test_a_held_out_loss_is_the_mean_of_its_blocks(mean, problems):
    stated = Estimate(value=mean, n=2, unit="nats/token", method="mean")
    blocks = np.arange(6).reshape(2, 3)
    asked = questions.of_held_out(FILE, stated, blocks, "float32")
    answers = [{"losses": [[1.0, 2.0]]}, {"losses": [[2.0, 3.0]]}]
    found = [[*x.problems(y)] for x, y in zip(asked, answers, strict=True)]
    assert [x.about["prompts"] for x in asked] == [[[0]], [[3]]]
    assert [len(x) for x in found] == [0, problems]


GAINS, LOSSES = [0.0, 0.5, -1.0, 2.0], [1.0, 1.5, 0.5]


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({}, None),
        ({"gradient_health": 0.5}, "gradient_health at test/1 is 0.5, and replayed"),
        ({"gradient_truth": 0.4}, "gradient_truth at test/1 is 0.4, and replayed 0.01"),
        ({"first_order_fidelity": 0.0}, "first_order_fidelity at test/1 is 0.0, and"),
    ],
)
def test_diagnostics_are_held_against_plain_gradients(stated, said):
    true = {"gradient_health": 0.25, "gradient_truth": 0.01}
    true["first_order_fidelity"] = spearman(np.array(GAINS[:3]), np.array(LOSSES))
    asked = questions._flips(FILE, EXAMPLE, true | stated, np.arange(3, 300))
    answer = {"gains": GAINS, "losses": LOSSES, "untruth": 0.01}
    found = [problem.message for problem in asked.problems(answer)]
    assert len(found) == (said is not None)
    assert all(message.startswith(said) for message in found)


def test_the_replay_takes_nothing_of_the_harness_but_activations():
    """They are no part of scoring; and it says where it needed them."""
    tree = ast.parse(Path(plain_replay.__file__).read_text())
    taken = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harn")
    } | {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name.startswith("harness")
    }
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in taken
        for alias in node.names
    }
    assert (taken, names) == ({"harness.models"}, {"register_activations"})
