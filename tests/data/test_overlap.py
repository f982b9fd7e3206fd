"""Overlaps of corpora, against brute force over documents."""

import itertools

import pytest

from harness.data import CorpusSection, shared_documents

SIZE = 400
SLICES = [":", "0:", ":0", ":100", "100:", "50:150", "100:100", ":400", "399:"]
SHARES = [":", ":25%", "25%:", "10%:30%", "100%:", ":100%", "0%:1%", "60%:40%"]


def documents(text):
    start, stop = text.split(":")
    number = {True: lambda s: SIZE * int(s[:-1]) // 100, False: int}
    first = number[start.endswith("%")](start) if start else 0
    last = number[stop.endswith("%")](stop) if stop else SIZE
    return set(range(first, last))


def source(text="", **stated):
    stated = stated or {"builtin": "python-topics"}
    return CorpusSection(**stated, slice=text or ":")


@pytest.mark.parametrize("units", [SLICES, SHARES], ids=["documents", "percent"])
def test_slices_in_one_unit_overlap_where_their_documents_do(units):
    for one, other in itertools.product(units, repeat=2):
        found = shared_documents(source(one), source(other))
        assert bool(found) == bool(documents(one) & documents(other)), (one, other)


def test_slices_in_two_units_overlap_unless_one_is_empty_or_their_ends_are_alike():
    for one, other in itertools.product(SLICES, SHARES):
        found = shared_documents(source(one), source(other))
        if documents(one) & documents(other):
            assert found, (one, other)
    assert shared_documents(source("200:"), source(":10%")) == (
        "cannot be shown to share no document (slices ':10%' and '200:')"
    )
    assert shared_documents(source("10:80%"), source("80%:")) is None


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ({"builtin": "python-topics"}, {"path": "python-topics"}, False),
        ({"dataset": "a/b"}, {"dataset": "a/b"}, True),
        ({"dataset": "a/b"}, {"dataset": "a/c"}, False),
        ({"dataset": "a/b"}, {"dataset": "a/b", "split": "test"}, False),
        ({"dataset": "a/b", "split": "test"}, {"dataset": "a/b"}, False),
        ({"dataset": "d", "files": "x/*"}, {"dataset": "d", "files": "x/1"}, True),
        ({"dataset": "d", "files": "x/1"}, {"dataset": "d", "files": "x/2"}, False),
        ({"dataset": "d"}, {"dataset": "d", "revision": "main"}, True),
        ({"path": "nowhere.txt"}, {"path": "nowhere.txt"}, True),
    ],
)
def test_what_counts_as_one_text(one, other, shared):
    assert bool(shared_documents(source(**one), source(**other))) == shared
    assert bool(shared_documents(source(**other), source(**one))) == shared


def test_patterns_and_links_are_followed_to_files(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "a.jsonl")
    both, a, b, link = (
        source(path=str(tmp_path / name))
        for name in ("[ab].jsonl", "a.jsonl", "b.jsonl", "link.jsonl")
    )
    assert shared_documents(both, a)
    assert shared_documents(a, link)
    assert shared_documents(a, b) is None
    # Slices of different patterns count different documents.
    first = source(":10", path=str(tmp_path / "*.jsonl"))
    later = source("10:20", path=str(tmp_path / "b.jsonl"))
    assert shared_documents(first, later).startswith(f"shares documents of {tmp_path}")
