"""Python's own help topics as a corpus."""

import json
import subprocess
import sys

from harness.data.builtin import python_topics


def test_documents_have_a_useful_length_and_hold_most_of_the_text():
    documents = python_topics()
    assert all(1000 <= len(text) <= 3100 for text in documents)
    assert sum(map(len, documents)) > 300_000


def test_documents_are_the_same_in_each_process():
    program = (
        "import json; from harness.data.builtin import python_topics\n"
        "print(json.dumps(python_topics()))"
    )
    told = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert json.loads(told) == python_topics()


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
