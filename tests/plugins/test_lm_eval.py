"""lm_eval: its own numbers, and none of what it does to the process."""

from __future__ import annotations

import copy
import json
import math
import multiprocessing
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.api import MetricContext
from harness.base import MissingResource, UsageError
from harness.data import Document
from harness.subject import Subject
from harness.testing import tiny_model, tiny_tokenizer
from harness_plugins.metrics.lm_eval import LmEval, LmEvalOptions
from harness_plugins.metrics.perplexity import Perplexity, PerplexityOptions
from tests.plugins.terms import assert_terms_make

ROWS = [
    {
        "text": f"the {i} cat sat on the mat and the dog",
        "choices": [f"ate {i}", "sat on the mat", "o"],
        "gold": i % 3,
    }
    for i in range(9)
]
COMMON = """
dataset_path: json
dataset_kwargs: {data_files: {test: DATA, train: DATA}}
test_split: test
"""
TASKS = {
    "last_word": """
output_type: loglikelihood
doc_to_text: "{{text.split(' ')[:-1]|join(' ')}}"
doc_to_target: "{{' '+text.split(' ')[-1]}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "choose": """
output_type: multiple_choice
training_split: train
doc_to_text: text
doc_to_target: gold
doc_to_choice: "{{choices}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: brier_score, aggregation: brier_score, higher_is_better: false}
""",
    "rolling": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity}
  - {metric: byte_perplexity, aggregation: weighted_perplexity}
  - {metric: bits_per_byte, aggregation: bits_per_byte}
""",
    "graded": """
output_type: loglikelihood
doc_to_text: text
doc_to_target: "{{choices[0]}}"
process_results: !function scores.share
metric_list:
  - {metric: share, aggregation: mean, higher_is_better: true}
  - {metric: own, aggregation: !function scores.largest, higher_is_better: true}
""",
}
SCORES = """
import math

def share(doc, results):
    return {"share": math.exp(results[0][0] / 20), "own": 1.0}

def largest(items):
    return max(items)
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch) -> Path:
    """Return a folder with task files over a small local file."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "tasks"
    folder.mkdir()
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, task in TASKS.items():
        common = COMMON.replace("DATA", str(data))
        (folder / f"{name}.yaml").write_text(f"task: {name}{common}{task}")
    (folder / "scores.py").write_text(SCORES)
    return folder


@pytest.fixture
def subject() -> Subject:
    return Subject(tiny_model(), tiny_tokenizer(), batch_size=4)


def metric(folder: Path, *names: str, **options) -> LmEval:
    return LmEval(
        LmEvalOptions(tasks=names, include_path=str(folder), **options),
    )


def measure(lm_eval: LmEval, subject: Subject, **context) -> list[dict]:
    told = MetricContext(lambda name: iter(()), **{"limit": None, **context})
    rows = [dict(row) for row in lm_eval.measure(subject, told)]
    json.dumps(rows, allow_nan=False)
    return rows


def theirs(subject: Subject, folder: Path, names: list[str], **options) -> dict:
    """Return what lm-eval itself says, called as its users call it."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model, tokenizer = subject.huggingface()
    results = lm_eval.simple_evaluate(
        HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=4),
        tasks=names,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        **options,
    )
    return {
        f"{task}.{key.removesuffix(',none')}": value
        for task, values in results["results"].items()
        for key, value in values.items()
        if key.endswith(",none") and value != "N/A" and "stderr" not in key
    }


def values(estimates) -> dict:
    return {name: estimate.value for name, estimate in estimates.items()}


# --- its numbers --------------------------------------------------------------------


@pytest.mark.filterwarnings("default")
def test_estimates_equal_lm_evals_own_results(tasks, subject):
    lm_eval = metric(tasks, "last_word", "choose", "rolling", "graded")
    rows = measure(lm_eval, subject)
    found = lm_eval.summarise(rows)
    expected = theirs(subject, tasks, list(lm_eval.options.tasks))
    assert expected.pop("graded.own") == 1.0
    own = found.pop("graded.own")
    assert own.value is None
    assert "a function of its own" in own.reason
    assert values(found) == pytest.approx(expected, rel=1e-5)
    assert len(rows) == 4 * len(ROWS)
    summed = assert_terms_make(lm_eval, rows, found)
    assert {"last_word.acc", "last_word.perplexity", "rolling.bits_per_byte"} <= summed
    assert "graded.own" not in summed
    assert lm_eval.estimate_names() == []  # it may be a group
    known = metric(tasks, "hellaswag", "piqa")
    assert known.estimate_names() == ["hellaswag.", "piqa."]


@pytest.mark.filterwarnings("default")
def test_equals_lm_eval_on_lambada_with_a_trained_model(tasks, shared):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = shared / "models" / "pythia-14m-standin"
    model = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
    subject = Subject(model, AutoTokenizer.from_pretrained(path), batch_size=4)
    file = tasks / "last_word.yaml"
    data = str(shared / "data" / "lambada_openai.jsonl")
    file.write_text(re.sub(r"/\S+data\.jsonl", data, file.read_text()))
    lm_eval = metric(tasks, "last_word", limit=12)
    found = lm_eval.summarise(measure(lm_eval, subject))
    expected = theirs(subject, tasks, ["last_word"], limit=12)
    assert values(found) == pytest.approx(expected, rel=1e-5)
    assert found["last_word.acc"].n == 12


def test_intervals_fit_the_scores(tasks, subject):
    lm_eval = metric(tasks, "last_word", "choose", "graded")
    found = lm_eval.summarise(measure(lm_eval, subject))
    hits = round(found["choose.acc"].value * len(ROWS))
    for bound in found["choose.acc"].interval:
        # Wilson's bounds are the fractions that lie 1.96 of their own errors away.
        error = math.sqrt(bound * (1 - bound) / len(ROWS))
        assert abs(hits / len(ROWS) - bound) == pytest.approx(1.959964 * error)
    for name in ("last_word.perplexity", "graded.share"):
        low, high = found[name].interval
        assert low < found[name].value < high
        assert "bootstrap over examples" in found[name].method
    assert found["choose.brier_score"].interval is None
    assert "no interval" in found["choose.brier_score"].reason


def test_rolling_windows_of_repeated_text_are_not_mixed_up(tasks, float32_error):
    subject = Subject(tiny_model(max_position_embeddings=24), tiny_tokenizer())
    text = "the cat sat on the mat; " * 12
    (tasks.parent / "data.jsonl").write_text(json.dumps({"text": text}))
    (row,) = measure(metric(tasks, "rolling"), subject)
    told = MetricContext(lambda name: iter([Document("0", text)]), limit=None)
    (found,) = Perplexity(PerplexityOptions(corpus="c")).measure(subject, told)
    error = float32_error(subject.huggingface()[0], found["nats"], found["tokens"])
    nats = -row["scores"]["bits_per_byte"][0]
    assert nats == pytest.approx(found["nats"], abs=error)


def test_few_shot_prompts_are_the_same_each_time(tasks, subject):
    hashes = [
        [row["prompt_hash"] for row in measure(metric(tasks, "choose", **n), subject)]
        for n in ({}, {"num_fewshot": 2}, {"num_fewshot": 2})
    ]
    assert hashes[0] != hashes[1] == hashes[2]


def test_limit_is_the_smaller_of_the_two(tasks, subject):
    assert len(measure(metric(tasks, "choose", limit=5), subject, limit=3)) == 3
    assert len(measure(metric(tasks, "choose", limit=2), subject, limit=3)) == 2


def test_progress_counts_requests(tasks, subject):
    seen: list[tuple[int, int]] = []
    measure(
        metric(tasks, "choose"), subject, report=lambda *counts: seen.append(counts)
    )
    assert seen[-1] == (27, 27)
    assert seen == sorted(seen)


def test_task_file_of_the_documentation_works(tasks, subject):
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    example = page.read_text().split("```yaml\ntask: lambada_local")[1].split("```")[0]
    data = str(tasks.parent / "data.jsonl")
    (tasks / "lambada_local.yaml").write_text(
        "task: lambada_local" + example.replace("/data/lambada.jsonl", data)
    )
    local, last_word = (
        measure(metric(tasks, name), subject) for name in ("lambada_local", "last_word")
    )
    assert [row["scores"] for row in local] == [row["scores"] for row in last_word]


# --- broken models ------------------------------------------------------------------


def test_overflow_is_null_with_a_reason_and_the_rest_is_kept(tasks):
    model = tiny_model()
    model.get_output_embeddings().weight.data.mul_(1000)
    lm_eval = metric(tasks, "last_word")
    rows = measure(lm_eval, Subject(model, tiny_tokenizer()))
    found = lm_eval.summarise(rows)
    assert np.mean([-row["scores"]["perplexity"] for row in rows]) > 710
    assert found["last_word.perplexity"].value is None
    assert "range of floats" in found["last_word.perplexity"].reason
    assert found["last_word.acc"].value is not None


def test_nan_is_null_with_a_reason(tasks):
    model = tiny_model()
    model.get_output_embeddings().weight.data.fill_(math.nan)
    lm_eval = metric(tasks, "last_word")
    found = lm_eval.summarise(measure(lm_eval, Subject(model, tiny_tokenizer())))
    assert found["last_word.perplexity"].value is None
    assert "9 of 9 examples" in found["last_word.perplexity"].reason


def test_batches_shrink_when_memory_does_not_suffice(tasks, subject, float32_error):
    expected = measure(metric(tasks, "choose"), subject)
    model, _ = subject.huggingface()
    sizes = []

    def refuse(module, args, kwargs) -> None:
        sizes.append(len(args[0] if args else kwargs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("too much")

    hook = model.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        found = measure(metric(tasks, "choose"), subject)
    finally:
        hook.remove()
    error = float32_error(model, 1.0, tokens=1)
    for row, other in zip(found, expected, strict=True):
        scores, wanted = (_numbers(x.pop("scores")) for x in (row, other))
        assert scores == pytest.approx(wanted, rel=error)
        assert row == other
    assert max(sizes) == 4
    assert max(sizes[1:]) == 2


def _numbers(value) -> list[float]:
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if isinstance(value, list):
        return [number for part in value for number in _numbers(part)]
    return [float(value)]


def test_aggregation_that_fails_is_null_with_a_reason(tmp_path):
    row = {"task": "t", "filter": "none", "aggregations": {"f1": "f1"}}
    rows = [{**row, "scores": {"f1": [gold, 2]}} for gold in (0, 1, 2)]
    estimate = metric(tmp_path, "t").summarise(rows)["t.f1"]
    assert estimate.value is None
    assert "f1 failed: Target is multiclass" in estimate.reason


# --- kept away from us --------------------------------------------------------------


def test_random_state_outside_is_untouched(tasks, subject):
    def states() -> tuple:
        return (
            random.getstate(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            torch.get_rng_state().tolist(),
        )

    random.seed(5)
    before = states()
    measure(metric(tasks, "choose", num_fewshot=1), subject)
    assert states() == before


def test_one_models_answers_are_never_anothers(tasks, subject):
    other = Subject(tiny_model(seed=1), tiny_tokenizer())
    lm_eval = metric(tasks, "last_word")
    first, second = (measure(lm_eval, s) for s in (subject, other))
    assert all(
        a["scores"]["perplexity"] != b["scores"]["perplexity"]
        for a, b in zip(first, second, strict=True)
    )


def test_nothing_is_written_outside_the_cache_of_datasets(
    tasks, subject, tmp_path, monkeypatch
):
    import lm_eval

    def files() -> set[Path]:
        inside = Path(lm_eval.__file__).parent.rglob("*.pickle")
        places = (tmp_path / "empty", tmp_path / "requests")
        return {*inside, *(file for place in places for file in place.rglob("*"))}

    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setenv("LM_HARNESS_CACHE_PATH", str(tmp_path / "requests"))
    before = files()
    measure(metric(tasks, "choose"), subject)
    assert files() == before


def test_no_process_pool_is_opened(tasks, subject, monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a pool was opened")

    monkeypatch.setattr(multiprocessing, "Pool", refuse)
    monkeypatch.setattr(multiprocessing.pool, "Pool", refuse)
    lm_eval = metric(tasks, "choose")
    lm_eval.summarise(measure(lm_eval, subject))


def test_nothing_is_printed(tasks, subject, capfd, caplog):
    measure(metric(tasks, "last_word", "rolling", num_fewshot=0), subject)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_the_tokenizer_is_left_as_it_is(tasks, subject):
    _, tokenizer = subject.huggingface()
    measure(metric(tasks, "choose"), subject)
    assert tokenizer.pad_token is None


# --- what is not there --------------------------------------------------------------


def test_dataset_that_is_not_here_is_named_and_not_asked_for(
    tasks, monkeypatch, no_network
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    lm_eval = metric(tasks, "lambada_openai", "last_word")
    (sentence,) = lm_eval.missing()
    assert re.search(r"lambada_openai .*EleutherAI/lambada_openai.*prefetch", sentence)
    assert "\n" not in sentence


def test_data_file_that_is_not_here_is_named(tasks, subject):
    (tasks.parent / "data.jsonl").unlink()
    lm_eval = metric(tasks, "choose")
    (sentence,) = lm_eval.missing()
    assert re.search(r"task choose cannot be loaded.*data\.jsonl", sentence)
    with pytest.raises(MissingResource, match="choose"):
        measure(lm_eval, subject)


def test_include_path_that_is_not_here_is_named(tmp_path):
    (sentence,) = metric(tmp_path / "nowhere", "choose").missing()
    assert "nowhere" in sentence


def test_fetch_is_quiet_about_what_is_here_and_names_what_fails(tasks):
    metric(tasks, "choose").fetch()
    with pytest.raises(MissingResource, match="EleutherAI/lambada_openai"):
        metric(tasks, "lambada_openai").fetch()


@pytest.mark.slow
def test_unknown_task_names_the_nearest(tasks, subject):
    with pytest.raises(UsageError, match="did you mean 'last_word'"):
        measure(metric(tasks, "lastword"), subject)
