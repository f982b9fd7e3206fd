"""Corpora: slices, fingerprints, what is missing, and packed token blocks."""

import glob
import hashlib
import itertools
import re
from pathlib import Path

import datasets  # noqa: F401 (so that no test's clock counts it)
import numpy as np
import pytest

from harness.base.errors import MissingResource, UsageError
from harness.base.store import Store
from harness.data import patterns
from harness.data.blocks import token_blocks
from harness.data.corpora import Corpora
from harness.data.sections import CorpusSection
from harness.testing import tiny_tokenizer
from tests.data.rows import write_rows

TEXTS = [f"document number {i} " * 3 for i in range(10)]


def corpora_of(folder: Path, limit: int | None = None, **section) -> Corpora:
    if not section.keys() & {"path", "dataset", "builtin"}:
        section["path"] = str(write(folder / "data.jsonl", TEXTS))
    return Corpora({"c": CorpusSection(**section)}, Store(folder / "store"), limit)


def write(path: Path, texts: list[str]) -> Path:
    return write_rows(path, [{"text": text} for text in texts])


def ids(corpora: Corpora) -> list[int]:
    return [int(document.id) for document in corpora.all_documents("c")]


@pytest.mark.parametrize(
    ("slice_", "expected"),
    [
        (":", range(10)),
        ("3:", range(3, 10)),
        (":3", range(3)),
        ("2:4", range(2, 4)),
        ("5:99", range(5, 10)),
        (":25%", range(2)),
        ("25%:", range(2, 10)),
        ("0%:100%", range(10)),
        ("20%:4", range(2, 4)),
        ("4:4", range(0)),
    ],
)
def test_slices_count_rows_of_the_source(tmp_path, slice_, expected):
    assert ids(corpora_of(tmp_path, slice=slice_)) == list(expected)


@pytest.mark.parametrize("percent", [1, 33, 50, 99])
def test_slices_that_meet_share_no_document_and_lose_none(tmp_path, percent):
    first = ids(corpora_of(tmp_path, slice=f":{percent}%"))
    second = ids(corpora_of(tmp_path, slice=f"{percent}%:"))
    assert first + second == list(range(10))


def test_blank_documents_are_dropped_but_keep_their_place(tmp_path):
    path = write(tmp_path / "blank.jsonl", ["a", "  \n", "b", ""])
    documents = corpora_of(tmp_path, path=str(path)).all_documents("c")
    assert [(d.id, d.text) for d in documents] == [("0", "a"), ("2", "b")]


def test_limit_cuts_what_metrics_see_only(tmp_path):
    corpora = corpora_of(tmp_path, limit=4)
    assert [document.id for document in corpora.documents("c")] == list("0123")
    assert len(ids(corpora)) == 10


def test_glob_reads_files_in_the_order_of_their_names(tmp_path):
    for name in ("b", "a", "c"):
        write(tmp_path / f"part-{name}.jsonl", [name])
    corpora = corpora_of(tmp_path, path=str(tmp_path / "part-*.jsonl"))
    assert [d.text for d in corpora.all_documents("c")] == ["a", "b", "c"]


def test_file_name_with_globs_own_characters_is_taken_literally(tmp_path):
    path = write(tmp_path / "data[1]*?.jsonl", ["x"])
    assert ids(corpora_of(tmp_path, path=str(path))) == [0]


PATTERNS = ["*", "d*/*", "d[01]/f?", "*/*", ".*/*", "d1/*", "*/f3", "d0/f9", "./*/f1"]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Go to a folder of 5 folders with 4 files each, one of them hidden."""
    for folder in ("d0", "d1", "d2", "e", ".hidden"):
        (tmp_path / folder).mkdir()
        for number in range(4):
            (tmp_path / folder / f"f{number}").touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.usefixtures("folders")
def test_patterns_match_what_glob_does(pattern, tmp_path):
    for each in (pattern, str(tmp_path / pattern)):
        expected = sorted(glob.glob(each))  # noqa: PTH207
        assert [*map(Path, patterns.matching(each))] == [*map(Path, expected)]


@pytest.mark.usefixtures("folders")
def test_a_pattern_is_compared_with_so_many_names_and_no_more(monkeypatch):
    monkeypatch.setattr(patterns, "MOST_ENTRIES", 21)  # 5 folders, 4 x 4 files in sight
    assert len(patterns.matching("*/*")) == 16
    monkeypatch.setattr(patterns, "MOST_ENTRIES", 20)
    with pytest.raises(
        UsageError, match="through more than 20 files and folders: name"
    ):
        patterns.matching("*/*")
    assert patterns.matching("*/none") == []  # which is looked for by its name


def test_fingerprint_is_the_hash_of_the_file_or_of_the_text(tmp_path):
    corpora = corpora_of(tmp_path)
    assert corpora.missing("c") == []
    contents = (tmp_path / "data.jsonl").read_bytes()
    expected = hashlib.sha256(contents).hexdigest()
    assert corpora.fingerprint("c") == f"sha256:{expected}"
    builtin = corpora_of(tmp_path, builtin="python-topics", slice=":10")
    assert builtin.fingerprint("c").startswith("sha256:")
    assert len(ids(builtin)) == 10


def test_identity_tells_slices_and_contents_apart_but_not_places(tmp_path):
    first = corpora_of(tmp_path).identity("c")
    moved = write(tmp_path / "moved.jsonl", TEXTS)
    assert corpora_of(tmp_path, path=str(moved)).identity("c") == first
    assert corpora_of(tmp_path, slice=":5").identity("c") != first
    changed = write(tmp_path / "moved.jsonl", TEXTS[1:])
    assert corpora_of(tmp_path, path=str(changed)).identity("c") != first


def test_unknown_corpus_names_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="unknown corpus 'd'"):
        list(corpora_of(tmp_path).documents("d"))


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ({"path": "/nowhere/data.jsonl"}, "/nowhere/data.jsonl is not there"),
        ({"path": "/"}, "^/ is a folder: name its files"),
        ({"builtin": "python-topic"}, "did you mean 'python-topics'"),
        ({"text": "txt"}, "unknown field 'txt'; did you mean 'text'"),
        ({"dataset": "org/name"}, "dataset org/name .*harness prefetch"),
    ],
)
def test_missing_says_in_a_sentence_what_keeps_it_from_being_read(
    tmp_path, section, complaint, no_network
):
    (sentence,) = corpora_of(tmp_path, **section).missing("c")
    assert "\n" not in sentence
    assert re.search(complaint, sentence)


def test_reading_a_dataset_that_is_not_here_fails_at_once(tmp_path):
    corpora = corpora_of(tmp_path, dataset="org/name", split="test")
    with pytest.raises(MissingResource, match="split test"):
        next(corpora.documents("c"))
    with pytest.raises(MissingResource, match="harness prefetch"):
        corpora.fingerprint("c")


def test_real_files_are_read_as_they_are(tmp_path, shared):
    for name, section, count in [
        ("pile_documents.jsonl", {}, 10),
        ("lambada_openai.jsonl", {}, 1000),
        ("truthfulqa.csv", {"text": "Question"}, 300),
    ]:
        corpora = corpora_of(tmp_path, path=str(shared / "data" / name), **section)
        assert sum(1 for _ in corpora.documents("c")) == count


def blocks_of(corpora, tokenizer, folder, *, context=8, tokens=10**6, key="k"):
    store = Store(folder / "store")
    return token_blocks(corpora, "c", tokenizer, key, context, tokens, store)


def packed(texts, tokenizer) -> list[int]:
    """Return the ids of documents that are joined by the end token."""
    end = [tokenizer.eos_token_id]
    every = [tokenizer.encode(t, add_special_tokens=False) + end for t in texts]
    return list(itertools.chain.from_iterable(every))


@pytest.mark.parametrize(
    ("tokens", "n"), [(1, 1), (8, 1), (9, 2), (80, 10), (10**6, None)]
)
def test_blocks_suffice_for_the_tokens_asked_for(tmp_path, tokens, n):
    corpora = corpora_of(tmp_path)
    blocks = blocks_of(corpora, tiny_tokenizer(), tmp_path, tokens=tokens)
    expected = packed(TEXTS, tiny_tokenizer())
    whole = len(expected) // 8 if n is None else n
    assert blocks.shape == (whole, 8)
    assert blocks.ravel().tolist() == expected[: whole * 8]


def test_blocks_take_every_document_of_the_slice_whatever_the_limit(tmp_path):
    corpora = corpora_of(tmp_path, limit=1, slice="5:7")
    blocks = blocks_of(corpora, tiny_tokenizer(), tmp_path, context=1)
    assert blocks.ravel().tolist() == packed(TEXTS[5:7], tiny_tokenizer())


def test_blocks_are_made_once_for_each_content(tmp_path):
    def folders() -> int:
        return len(list((tmp_path / "store" / "token-blocks").iterdir()))

    blocks_of(corpora_of(tmp_path), tiny_tokenizer(), tmp_path)
    again = blocks_of(corpora_of(tmp_path), tiny_tokenizer(), tmp_path)
    assert isinstance(again, np.memmap | np.ndarray)
    assert folders() == 1
    blocks_of(corpora_of(tmp_path, slice="1:"), tiny_tokenizer(), tmp_path)
    blocks_of(corpora_of(tmp_path), tiny_tokenizer(), tmp_path, key="other")
    blocks_of(corpora_of(tmp_path), tiny_tokenizer(), tmp_path, context=4)
    assert folders() == 4


def test_corpus_shorter_than_a_block_is_a_users_mistake(tmp_path):
    with pytest.raises(UsageError, match="shorter than one block of 4096 tokens"):
        blocks_of(corpora_of(tmp_path), tiny_tokenizer(), tmp_path, context=4096)
