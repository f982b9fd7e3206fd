"""The metric rouge: what is written, held against plain transformers."""

from __future__ import annotations

import json
from statistics import fmean

import pytest
import torch

from harness.api import MetricContext
from harness.base import UsageError
from harness.data import Document
from harness.records import rouge
from harness.subject import Subject
from harness.testing import tiny_subject
from harness_plugins.metrics.rouge import Rouge, RougeOptions
from tests.plugins.terms import assert_terms_make

pytestmark = pytest.mark.transformers5
PAIRS = [
    ("the cat sat on the mat", "the cat sat"),
    ("the dog ate the other cat", "a dog ate"),
    ("and then that mat", "the mat"),
]


def measure(subject: Subject, documents: list[Document], **options) -> list[dict]:
    metric = Rouge(RougeOptions(corpus="c", **options))
    context = MetricContext(lambda name: iter(documents), None)
    rows = [dict(row) for row in metric.measure(subject, context)]
    json.dumps(rows, allow_nan=False)
    return rows


def documents() -> list[Document]:
    return [Document(str(i), a, b) for i, (a, b) in enumerate(PAIRS)]


def test_summaries_are_what_the_model_writes_after_the_whole_prompt():
    subject = tiny_subject("t5")
    model, tokenizer = subject.huggingface()
    rows = measure(subject, documents(), summary_tokens=7)
    for row, (prompt, reference) in zip(rows, PAIRS, strict=True):
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])  # closed by its end
        written = [model.config.decoder_start_token_id]
        while len(written) < 8 and written[-1] != tokenizer.eos_token_id:
            with torch.no_grad():
                logits = model(ids, decoder_input_ids=torch.tensor([written])).logits
            written.append(int(logits[0, -1].argmax()))
        assert row["tokens"] == len(written) - 1
        assert row["finished"] == (written[-1] == tokenizer.eos_token_id)
        text = tokenizer.decode(written[1:], skip_special_tokens=True).strip()
        assert (row["reference"], row["summary"]) == (reference, text)
        scores = {kind: row[kind] for kind in ("rouge1", "rouge2", "rougeL")}
        assert scores == rouge(reference, text)


def test_estimates_are_means_over_documents_with_an_interval():
    metric = Rouge(RougeOptions(corpus="c"))
    rows = [
        {
            "document_id": str(i),
            "rouge1": i / 10,
            "rouge2": i / 20,
            "rougeL": i / 30,
            "tokens": 5 + i,
            "finished": i > 2,
        }
        for i in range(10)
    ]
    found = metric.summarise(rows)
    assert found["rougeL"].value == pytest.approx(fmean(i / 30 for i in range(10)))
    low, high = found["rouge1"].interval
    assert low < 0.45 < high
    assert found["tokens"].value == 9.5
    assert found["unfinished"].value == 0.3
    assert assert_terms_make(metric, rows, found) == {*found}
    assert {*metric.estimate_names()} == {*found}


def test_documents_of_a_cluster_count_as_one():
    pairs = [Document(str(i), *PAIRS[i // 5], cluster=f"c{i // 5}") for i in range(15)]
    rows = measure(tiny_subject("t5"), pairs, summary_tokens=3)
    metric = Rouge(RougeOptions(corpus="c"))
    split, once = (metric.summarise(x) for x in (rows, rows[::5]))
    assert split["tokens"].interval == once["tokens"].interval
    assert split["rouge1"].interval == pytest.approx(once["rouge1"].interval)
    units = [metric.terms(row)["rouge1"].unit for row in rows[::5]]
    assert units == ["c0", "c1", "c2"]


def test_prompts_are_cut_to_their_limit():
    subject = tiny_subject("t5")
    long = [Document("0", "the cat sat on the mat " * 9, "the cat")]
    short = [Document("0", "the cat", "the cat")]
    ids = subject.encode(long[0].text)[:3]
    cut = [Document("0", subject.decode(ids), "the cat")]
    (row,) = measure(subject, long, prompt_tokens=4, summary_tokens=4)
    (expected,) = measure(subject, cut, prompt_tokens=9, summary_tokens=4)
    assert row == expected
    assert measure(subject, short, summary_tokens=4)


def test_a_corpus_without_references_is_a_users_mistake():
    with pytest.raises(UsageError, match="corpus c holds texts, not pairs"):
        measure(tiny_subject("t5"), [Document("0", "the cat")], summary_tokens=2)
