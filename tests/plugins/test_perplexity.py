"""Perplexity: equal to lm-eval's and transformers', safe for broken models."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator

import numpy as np
import pydantic
import pytest
import torch

from harness.api import MetricContext
from harness.base import UsageError
from harness.data import Document
from harness.subject import Subject
from harness.testing import tiny_model, tiny_tokenizer
from harness_plugins.metrics.perplexity import Perplexity, PerplexityOptions
from tests.plugins.terms import assert_terms_make

TEXTS = [
    " ".join(f"the cat sat on mat {i};" for i in range(14)),
    "a dog  ate\nthe other cat",
    " ".join(f"é{i} ☃ unknown words of the mat" for i in range(9)),
    "x",
]
LONGEST = 24
SUMMED = ("nats", "tokens", "words", "bytes")


def context(texts=TEXTS, limit=None, report=lambda done, total: None) -> MetricContext:
    def documents(name: str) -> Iterator[Document]:
        assert name == "c"
        return iter([Document(str(i), text) for i, text in enumerate(texts)])

    return MetricContext(documents, limit, report)


def metric(**options) -> Perplexity:
    return Perplexity(PerplexityOptions(corpus="c", **options))


@pytest.fixture
def subject() -> Subject:
    model = tiny_model(max_position_embeddings=LONGEST)
    return Subject(model, tiny_tokenizer(), batch_size=3)


def lm_eval_rolling(model, tokenizer, folder, texts) -> dict[str, float]:
    """Return what lm-eval itself says of the texts."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    task = {
        "task": "rolling",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "metric_list": [
            {"metric": name}
            for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")
        ],
    }
    results = lm_eval.simple_evaluate(
        HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=2),
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
    )
    return results["results"]["rolling"]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("start", [False, True])
def test_equals_lm_eval_on_the_same_documents(tmp_path, monkeypatch, opened, start):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    tokenizer = opened(tiny_tokenizer()) if start else tiny_tokenizer()
    model = tiny_model(max_position_embeddings=LONGEST)
    theirs = lm_eval_rolling(model, tokenizer, tmp_path, TEXTS)
    rows = list(metric().measure(Subject(model, tokenizer), context()))
    assert max(row["tokens"] for row in rows) > 3 * LONGEST
    ours = metric().summarise(rows)
    for name in ("word_perplexity", "byte_perplexity", "bits_per_byte"):
        assert ours[name].value == pytest.approx(theirs[f"{name},none"], rel=1e-5)


def test_loss_of_a_short_document_is_the_cross_entropy_of_transformers(subject):
    model, tokenizer = subject.huggingface()
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer.encode(TEXTS[1])]])
    with torch.no_grad():
        expected = model(ids, labels=ids).loss.item()
    (row,) = metric().measure(subject, context([TEXTS[1]]))
    assert row["tokens"] == ids.shape[1] - 1
    assert row["nats"] / row["tokens"] == pytest.approx(expected, abs=1e-5)
    assert (row["words"], row["bytes"]) == (6, 24)


@pytest.mark.parametrize(("window", "stride"), [(8, 8), (8, 3), (7, 1), (None, 5)])
def test_strided_windows_score_each_token_once_in_the_right_context(
    subject, window, stride
):
    model, tokenizer = subject.huggingface()
    context_ = window or LONGEST
    rows = metric(context=window, stride=stride).measure(subject, context())
    for row, text in zip(rows, TEXTS, strict=True):
        ids = [tokenizer.eos_token_id, *tokenizer.encode(text)]
        expected = 0.0
        for position in range(1, len(ids)):
            # The window that scores this position ends where its stride does.
            steps = max(0, math.ceil((position - context_) / stride))
            end = min(len(ids) - 1, context_ + steps * stride)
            start = max(0, end - context_)
            with torch.no_grad():
                logits = model(torch.tensor([ids[start:position]])).logits[0, -1]
            expected -= logits.log_softmax(-1)[ids[position]].item()
        assert row["tokens"] == len(ids) - 1
        assert row["nats"] == pytest.approx(expected, rel=1e-5)


def test_estimates_follow_from_the_sums_of_the_rows(subject):
    rows = list(metric().measure(subject, context()))
    nats, tokens, words, size = (
        sum(row[key] for row in rows) for key in ("nats", "tokens", "words", "bytes")
    )
    found = metric().summarise(rows)
    expected = {
        "loss": nats / tokens,
        "token_perplexity": math.exp(nats / tokens),
        "word_perplexity": math.exp(nats / words),
        "byte_perplexity": math.exp(nats / size),
        "bits_per_byte": nats / size / math.log(2),
    }
    assert {name: e.value for name, e in found.items()} == pytest.approx(expected)
    for estimate in found.values():
        low, high = estimate.interval
        assert low <= estimate.value <= high
        assert estimate.n == len(TEXTS)
    assert assert_terms_make(metric(), rows, found) == {*found}
    assert {*metric().estimate_names()} == {*found}
    assert metric().terms({"nats": None}) == {}


def test_interval_covers_the_spread_of_documents():
    rng = np.random.default_rng(0)
    per_document = rng.normal(3.0, 0.5, size=400)
    rows = [
        {"nats": 10 * loss, "tokens": 10, "words": 1, "bytes": 1, "document_id": ""}
        for loss in per_document
    ]
    low, high = metric().summarise(rows)["loss"].interval
    half_width = 1.96 * per_document.std(ddof=1) / math.sqrt(400)
    assert (high - low) / 2 == pytest.approx(half_width, rel=0.1)


def test_documents_of_a_cluster_count_as_one(subject):
    """Their rows apart give the intervals of a row that holds their sums."""
    texts = [
        Document(str(i), text, cluster=f"c{i % 3}") for i, text in enumerate(TEXTS)
    ]
    asked = MetricContext(lambda name: iter(texts), None)
    rows = [*metric().measure(subject, asked)]
    assert [(x["document_id"], x["cluster"]) for x in rows] == [
        (x.id, x.cluster) for x in texts
    ]
    whole = [
        {x: sum(row[x] for row in rows if row["cluster"] == name) for x in SUMMED}
        | {"document_id": name}
        for name in ("c0", "c1", "c2")
    ]
    split, together = (metric().summarise(x) for x in (rows, whole))
    for name, found in split.items():
        assert found.interval == pytest.approx(together[name].interval)
        assert (found.n, "over clusters" in found.method) == (3, True)
    units = {term.unit for row in rows for term in metric().terms(row).values()}
    assert units == {"c0", "c1", "c2"}


def test_batch_size_does_not_matter(float32_error):
    model = tiny_model()
    alone, together = (
        metric().measure(Subject(model, tiny_tokenizer(), batch_size=size), context())
        for size in (1, 64)
    )
    for row, other in zip(alone, together, strict=True):
        error = float32_error(model, row["nats"], row["tokens"])
        assert other["nats"] == pytest.approx(row["nats"], abs=error)


def test_perplexity_beyond_floats_is_null_with_a_reason():
    rows = [
        {"document_id": str(i), "tokens": 1, "words": 1, "bytes": 4, "nats": 800.0 + i}
        for i in range(3)
    ]
    found = metric().summarise(rows)
    assert found["loss"].value == pytest.approx(801)
    assert found["byte_perplexity"].value == pytest.approx(math.exp(801 / 4))
    assert found["word_perplexity"].value is None
    assert "range of floats" in found["word_perplexity"].reason


def test_model_that_gives_nan_is_reported_and_not_left_out():
    model = tiny_model()
    model.get_output_embeddings().weight.data.fill_(torch.nan)
    rows = list(metric().measure(Subject(model, tiny_tokenizer()), context()))
    json.dumps(rows, allow_nan=False)
    assert [row["nats"] for row in rows] == [None] * len(TEXTS)
    for estimate in metric().summarise(rows).values():
        assert estimate.value is None
        assert "4 of 4 documents" in estimate.reason


def test_maxima_cut_after_whole_documents(subject):
    def ids(**options) -> list[str]:
        rows = metric(**options).measure(subject, context())
        return [row["document_id"] for row in rows]

    assert ids() == list("0123")
    assert ids(max_documents=2) == list("01")
    assert ids(max_tokens=1) == list("0")


def test_no_document_behind_the_last_token_is_scored(subject):
    sent = []
    token_losses = subject.token_losses
    subject.token_losses = lambda ids, first: (
        sent.extend(ids) or token_losses(ids, first)
    )
    documents = [Document(str(i), "the cat") for i in range(9)]
    context = MetricContext(documents=lambda name: iter(documents), limit=None)
    one = len(subject.encode(documents[0].text))
    options = PerplexityOptions(corpus="c", max_tokens=2 * one + 1)
    rows = [*Perplexity(options).measure(subject, context)]
    assert len(rows) == len(sent) == 3


def test_progress_is_reported(subject):
    seen = []
    told = context(report=lambda done, total: seen.append((done, total)))
    list(metric(max_documents=3).measure(subject, told))
    assert seen == [(3, 3)]


def test_impossible_windows_are_a_users_mistake(subject):
    with pytest.raises(pydantic.ValidationError, match="stride must not exceed"):
        metric(context=4, stride=5)
    with pytest.raises(UsageError, match="25 tokens are more than the model's 24"):
        list(metric(context=25).measure(subject, context()))
    with pytest.raises(UsageError, match="exceed the context of 24"):
        list(metric(stride=30).measure(subject, context()))


@pytest.mark.transformers5
@pytest.mark.parametrize("family", ["gpt_neox", "opt", "t5"])
def test_of_pairs_the_reference_is_scored_after_its_prompt(family):
    encoder_decoder = family == "t5"
    tokenizer = tiny_tokenizer(closed=encoder_decoder)
    model = tiny_model(family)
    pairs = [("the cat sat on the mat", "the cat"), ("a dog ate", "the other dog")]
    documents = [Document(str(i), a, b) for i, (a, b) in enumerate(pairs)]
    told = MetricContext(lambda name: iter(documents), None)
    rows = list(metric().measure(Subject(model, tokenizer), told))
    for row, (prompt, reference) in zip(rows, pairs, strict=True):
        with torch.no_grad():
            if encoder_decoder:  # its tokenizer closes both
                inputs = {"input_ids": tokenizer(prompt)["input_ids"]}
                labels = tokenizer(reference)["input_ids"]
                given = {k: torch.tensor([v]) for k, v in inputs.items()}
                logits = model(**given, labels=torch.tensor([labels])).logits[0]
            else:
                start = tokenizer(prompt)["input_ids"]
                labels = tokenizer(" " + reference)["input_ids"]
                logits = model(torch.tensor([start + labels])).logits[0]
                logits = logits[len(start) - 1 : -1]
        logs = logits.double().log_softmax(-1)[range(len(labels)), labels]
        assert row["nats"] == pytest.approx(-float(logs.sum()), abs=1e-4)
        assert row["tokens"] == len(labels)
        assert row["words"] == len(reference.split())
        assert row["bytes"] == len(reference)
