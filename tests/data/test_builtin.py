"""Python's own help topics as a corpus."""

from __future__ import annotations

from harness.data.builtin import python_topics


def test_documents_have_a_useful_length_and_hold_most_of_the_text():
    documents = python_topics()
    assert all(1000 <= len(text) <= 3100 for text in documents)
    assert sum(map(len, documents)) > 300_000


def test_documents_are_the_same_each_time():
    assert python_topics() == python_topics()


def test_no_paragraph_is_in_two_documents():
    paragraphs = [
        " ".join(paragraph.split())
        for document in python_topics()
        for paragraph in document.split("\n\n")
    ]
    long = [paragraph for paragraph in paragraphs if len(paragraph) > 300]
    assert len(long) > 200
    assert len(long) == len(set(long))


def test_slices_are_about_everything():
    documents = python_topics()
    tail = " ".join(documents[len(documents) * 4 // 5 :])
    assert all(word in tail for word in ("class", "import", "string", "operator"))
