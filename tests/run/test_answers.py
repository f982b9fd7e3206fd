"""Answers: what a subject says, against plain transformers and against lm-eval."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.base.store import Store
from harness.data.corpora import Corpora
from harness.data.document import Choice, Example
from harness.data.examples import build_examples
from harness.data.sections import CorpusSection, ExampleSet, ExamplesSection
from harness.running.answers import answer, chosen
from harness.subject.decoding import predictions
from harness.subject.subject import Subject
from harness.testing import tiny_model, tiny_tokenizer

PROMPT = np.array([5, 17, 40, 9, 33])
TASKS = {
    "last_word": """
task: last_word
output_type: loglikelihood
doc_to_text: "{{text.split(' ')[:-1]|join(' ')}}"
doc_to_target: "{{' '+text.split(' ')[-1]}}"
""",
    "endings": """
task: endings
output_type: multiple_choice
doc_to_text: query
doc_to_target: gold
doc_to_choice: choices
""",
}
METRICS = """
test_split: test
metric_list:
  - {metric: METRIC, aggregation: mean, higher_is_better: true}
"""


def greedy(model, prompt, count: int) -> np.ndarray:
    """Return what the model goes on with, one plain forward pass for each token."""
    written: list[int] = []
    for _ in range(count):
        if model.config.is_encoder_decoder:
            start = [model.config.decoder_start_token_id, *written]
            inputs = {"decoder_input_ids": torch.tensor([start])}
            ids = torch.tensor(prompt)[None]
        else:
            inputs, ids = {}, torch.tensor([*prompt, *written])[None]
        with torch.no_grad():
            written.append(int(model(input_ids=ids, **inputs).logits[0, -1].argmax()))
    return np.array(written)


@pytest.mark.transformers5
@pytest.mark.parametrize("name", ["gpt_neox", "opt", "t5"])
def test_what_a_model_would_write_is_correct_and_nothing_else(name):
    subject = Subject(tiny_model(name), tiny_tokenizer())
    written = greedy(subject.huggingface()[0], PROMPT, 4)
    others = [written.copy() for _ in written]
    for place, other in enumerate(others):
        other[place] = (other[place] + 1) % 300
    found = subject.argmax_correct([PROMPT] * 5, [written, *others])
    assert found == [True, False, False, False, False]
    assert subject.ledger.cost().sequences_forward == 5


def test_of_equal_logits_the_lowest_id_is_said():
    model = tiny_model()
    prompt = torch.tensor(PROMPT)
    with torch.no_grad():
        best = int(model(prompt[None]).logits[0, -1].argmax())
        head = model.get_output_embeddings().weight
        head[[best - 2, best + 3]] = head[best].clone()
    reference = torch.tensor([best])
    assert predictions(model, prompt, reference).tolist() == [best - 2]


def sum_of_logs(model, prompt, reference) -> float:
    ids = torch.tensor([*prompt, *reference])[None]
    with torch.no_grad():
        logits = model(ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
    return float(logits[range(len(reference)), list(reference)].sum())


def test_the_choice_of_the_highest_likelihood_for_a_character_is_taken():
    subject = Subject(tiny_model(), tiny_tokenizer())
    rng = np.random.default_rng(0)
    rights = []
    for gold in range(12):
        choices = tuple(
            Choice(*(rng.integers(1, 280, n) for n in (2, 1 + i)), characters=4 + i)
            for i in range(3)
        )
        right = choices[gold % 3]
        example = Example(
            "x",
            "x",
            np.concatenate([PROMPT, right.tail_ids]),
            right.answer_ids,
            protected_end=2,
            choices=choices,
            gold=gold % 3,
            answer=True,
        )
        attacked = example.prompt_ids.copy()
        attacked[:5] = rng.integers(1, 280, 5)
        found = answer(subject, example, attacked)
        model = subject.huggingface()[0]
        expected = [
            sum_of_logs(model, [*attacked[:5], *c.tail_ids], c.answer_ids)
            / c.characters
            for c in choices
        ]
        assert found.scores == pytest.approx(expected, abs=1e-5)
        assert found.correct == (int(np.argmax(expected)) == gold % 3)
        rights.append(found.correct)
    assert set(rights) == {True, False}


@pytest.mark.parametrize(
    ("scores", "first"),
    [((-1.0, -0.5, -2.0), 1), ((-1.0, -1.0), 0), ((-1.0, None), None), ((), None)],
)
def test_the_first_of_equal_choices_is_taken_and_none_without_numbers(scores, first):
    assert chosen(scores) == first


@pytest.fixture(scope="module")
def standin(shared) -> Subject:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shared / "models" / "pythia-14m-standin"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return Subject(model, AutoTokenizer.from_pretrained(folder))


def theirs(subject: Subject, folder: Path, task: str, metric: str) -> list[bool]:
    """Return lm-eval's verdict on each row of ``data.jsonl``."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    data = folder / "data.jsonl"
    source = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}"
    text = TASKS[task] + source + METRICS.replace("METRIC", metric)
    (folder / f"{task}.yaml").write_text(text)
    model, tokenizer = subject.huggingface()
    results = lm_eval.simple_evaluate(
        HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=4),
        tasks=[task],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
    )
    rows = sorted(results["samples"][task], key=lambda row: row["doc_id"])
    return [bool(row[metric]) for row in rows]


def cut_short(line: str) -> str:
    """Cut a text of LAMBADA short: its own last word is beyond so small a model."""
    words = json.loads(line)["text"].split(" ")
    return json.dumps({"text": " ".join(words[: len(words) // 2])})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "fields", "task", "metric", "count"),
    [
        ("lambada_openai.jsonl", {}, "last_word", "acc", 60),
        (
            "hellaswag.jsonl",
            {"prompt": "query", "choices": "choices", "gold": "gold"},
            "endings",
            "acc_norm",
            20,
        ),
    ],
)
def test_clean_answers_are_those_of_lm_eval(
    standin, shared, tmp_path, monkeypatch, file, fields, task, metric, count
):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    lines = (shared / "data" / file).read_text().splitlines()[:count]
    if task == "last_word":
        lines = [cut_short(line) for line in lines]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(lines) + "\n")
    section = ExamplesSection(
        test=ExampleSet(corpus="c", count=count),
        objective="answer",
        prompt_tokens=400,
        reference_tokens=100,
    )
    corpora = Corpora(
        {"c": CorpusSection(path=str(path), **fields)}, Store(tmp_path / "store")
    )
    tokenizer = standin.huggingface()[1]
    examples = build_examples(section, corpora, tokenizer, None).test
    ours = [answer(standin, x, x.prompt_ids).correct for x in examples]
    assert ours == theirs(standin, tmp_path, task, metric)
    assert 0 < sum(ours) < count
