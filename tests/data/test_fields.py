"""Pairs and tasks out of files: the same from every format, faults in one sentence."""

import json
import re
from pathlib import Path
from typing import Any

import pydantic
import pytest

from harness.base.errors import UsageError
from harness.base.store import Store
from harness.data.corpora import Corpora
from harness.data.document import Document
from harness.data.sections import CorpusSection
from tests.data.rows import write_rows

PAIRS = [
    {"dialogue": "a, b\nc", "summary": "one", "n": 1},
    {"dialogue": " ", "summary": "two", "n": 2},
    {"dialogue": "d", "summary": "", "n": 3},
    {"dialogue": "née", "summary": "four", "n": 4},
]
TASKS = [
    {"query": "sky is", "endings": ["blue", "red"], "label": 0},
    {"query": "grass is", "endings": ["pink", "green"], "label": "1"},
]


def documents(path: Path, **fields: Any) -> list[Document]:
    section = CorpusSection(path=str(path), **fields)
    return list(Corpora({"c": section}, Store(path.parent)).all_documents("c"))


def task(tmp_path: Path, row: dict[str, Any], **fields: str) -> Document:
    (document,) = documents(write_rows(tmp_path / "task.jsonl", [row]), **fields)
    return document


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "csv"])
def test_pairs_are_read_alike_and_blank_ones_left_out(tmp_path, ending):
    path = write_rows(tmp_path / f"pairs.{ending}", PAIRS)
    found = documents(path, prompt="dialogue", reference="summary", prefix="sum: ")
    assert found == [
        Document("0", "sum: a, b\nc", "one", prefix="sum: "),
        Document("3", "sum: née", "four", prefix="sum: "),
    ]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_choices_have_a_right_one(tmp_path, ending):
    rows = [{**row, "label": str(row["label"])} for row in TASKS]
    path = write_rows(tmp_path / f"tasks.{ending}", rows)
    found = documents(path, prompt="query", choices="endings", gold="label")
    assert found == [
        Document("0", "sky is", "blue", ("blue", "red"), 0),
        Document("1", "grass is", "green", ("pink", "green"), 1),
    ]


def test_wrong_choices_of_a_csv_stand_beside_the_right_answer(tmp_path):
    rows = [{"q": "Who?", "best": "me", "wrong": "you; they;"}]
    path = write_rows(tmp_path / "truth.csv", rows)
    (found,) = documents(path, prompt="q", reference="best", choices="wrong")
    assert found == Document("0", "Who?", "me", ("me", "you", "they"), 0)


def test_prompts_may_differ_instead_of_answers(tmp_path):
    row = {"contexts": ["so Sarah", "so Maria"], "continuation": "won.", "gold": 1}
    fields = {"prompt": "contexts", "reference": "continuation", "gold": "gold"}
    found = task(tmp_path, row, **fields)
    prompts = ("so Sarah", "so Maria")
    assert found == Document("0", "so Maria", "won.", ("won.",) * 2, 1, prompts)


@pytest.mark.parametrize(
    ("prompt", "reference", "whole"),
    [("a", "b", "a b"), ("a\n", "b", "a\nb"), ("a", " b", "a b"), ("a", None, "a")],
)
def test_a_space_joins_prompt_and_reference(prompt, reference, whole):
    assert Document("0", prompt, reference).whole == whole


TASK = {"prompt": "q", "choices": "c", "gold": "g"}


@pytest.mark.parametrize(
    ("row", "fields", "complaint"),
    [
        (
            {"dialog": "a", "summary": "b"},
            {"prompt": "dialogue", "reference": "summary"},
            "unknown field 'dialogue'; did you mean 'dialog'? (known: dialog, summary)",
        ),
        (
            {"q": ["a", "b"], "r": "x"},
            {"prompt": "q", "reference": "r"},
            "field 'q' holds list, not text",
        ),
        (
            {"q": "a", "c": ["x", "y"], "g": 2},
            TASK,
            "field 'g' holds 2, and the choices are numbered 0 to 1",
        ),
        (
            {"q": "a", "c": ["x", "y"], "g": ""},
            TASK,
            "field 'g' holds '', not the number of a choice",
        ),
        (
            {"q": "a", "c": ["x"], "g": 0},
            TASK,
            "field 'c' holds one choice, and two are needed",
        ),
        (
            {"q": "a", "c": [1, 2], "g": 0},
            TASK,
            "field 'c' holds list, not a list of texts",
        ),
    ],
)
def test_faults_of_rows_say_where(tmp_path, row, fields, complaint):
    with pytest.raises(UsageError) as caught:
        task(tmp_path, row, **fields)
    assert f"task.jsonl:1: {complaint}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_files_have_no_fields(tmp_path):
    path = tmp_path / "plain.txt"
    path.write_text("a\n\nb")
    with pytest.raises(UsageError, match="a text file has no field 'dialogue'"):
        documents(path, prompt="dialogue", reference="summary")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"reference": "summary"}, "reference needs `prompt` beside it"),
        ({"prompt": "dialogue"}, "prompt needs `reference` or `choices` beside it"),
        ({"prompt": "q", "choices": "c"}, "choices need either `gold`"),
        (TASK | {"reference": "r"}, "choices need either `gold`"),
    ],
)
def test_sections_that_name_too_little_are_refused(fields, complaint):
    with pytest.raises(pydantic.ValidationError, match=complaint):
        CorpusSection(path="data.jsonl", **fields)
    with pytest.raises(pydantic.ValidationError, match="a builtin text has no"):
        CorpusSection(builtin="python-topics", **fields)


def test_fields_are_part_of_what_identifies_a_corpus(tmp_path):
    path = str(write_rows(tmp_path / "pairs.jsonl", PAIRS))

    def identity(**fields: str) -> dict[str, Any]:
        section = CorpusSection(path=path, **fields)
        return Corpora({"c": section}, Store(tmp_path)).identity("c")

    plain = identity()
    assert set(plain) == {"fingerprint", "text", "separator", "slice"}
    pair = identity(prompt="dialogue", reference="summary")
    assert pair == {**plain, "prompt": "dialogue", "reference": "summary"}
    assert identity(prompt="dialogue", reference="summary", prefix="s: ") != pair


@pytest.mark.parametrize(
    ("name", "fields", "count", "choices"),
    [
        ("dialogsum_dev.jsonl", ("dialogue", "summary", None, None), 200, 0),
        ("hellaswag.jsonl", ("query", None, "choices", "gold"), 400, 4),
        ("winogrande.jsonl", ("context_options", "continuation", None, "gold"), 400, 2),
    ],
)
def test_real_rows_are_read_as_they_are(shared, name, fields, count, choices):
    names = dict(zip(("prompt", "reference", "choices", "gold"), fields, strict=True))
    found = documents(shared / "data" / name, **names)
    assert len(found) == count
    assert all(len(document.choices) == choices for document in found)
    lines = (shared / "data" / name).read_text().splitlines()
    for document, line in zip(found, lines, strict=True):
        row = json.loads(line)
        assert document.gold == row.get("gold")
        for field in (document.text, document.reference):
            assert any(
                field == value or (isinstance(value, list) and field in value)
                for value in row.values()
            )


def test_real_questions_of_a_csv_have_wrong_answers(shared):
    found = documents(
        shared / "data" / "truthfulqa.csv",
        prompt="Question",
        reference="Best Answer",
        choices="Incorrect Answers",
        prefix="Q: ",
    )
    assert len(found) == 300
    assert found[0].text.startswith("Q: What happens to you")
    assert len(found[0].choices) == 8


AUTHORED = [
    {"text": "a b", "author": "ann", "year": 1990},
    {"text": "c d", "author": "bob", "year": 2000},
]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.zst", "parquet", "csv"])
def test_documents_have_the_cluster_that_a_field_names(tmp_path, ending):
    path = write_rows(tmp_path / f"texts.{ending}", AUTHORED)
    assert [x.cluster for x in documents(path, cluster="author")] == ["ann", "bob"]
    assert [x.cluster for x in documents(path, cluster="year")] == ["1990", "2000"]
    assert [x.cluster for x in documents(path)] == [None, None]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"text": "a"}, "unknown field 'author' (known: text)"),
        ({"text": "a", "author": None}, "'author' holds nothing: every document needs"),
        ({"text": "a", "author": [1]}, "'author' holds [1], no name: every document"),
        ({"text": "a", "author": 1.5}, "'author' holds 1.5, no name: every document"),
    ],
)
def test_a_document_without_its_cluster_is_told(tmp_path, row, told):
    path = write_rows(tmp_path / "texts.jsonl", [row])
    with pytest.raises(UsageError, match=re.escape(told)):
        documents(path, cluster="author")


def test_texts_without_fields_have_no_clusters(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    with pytest.raises(UsageError, match="a text file has no field 'author'"):
        documents(tmp_path / "a.txt", cluster="author")
    with pytest.raises(pydantic.ValidationError, match="has no cluster"):
        CorpusSection(builtin="python-topics", cluster="author")
