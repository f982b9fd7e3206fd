"""Tokens as they are written: how much is read, how fast, and what a kill costs."""

import json
import os
import random
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import zstandard

from harness.base import Store
from harness.base.store import DamagedEntry
from harness.data import Corpora, CorpusSection, blocks, files
from harness.data.blocks import joined_ids, token_blocks
from harness.testing import tiny_tokenizer


def documents(count, seed=0):
    rng = random.Random(seed)
    words = ["the", "cat", "sat", "on", "a", "mat", "while", "dogs", "ran", "past"]
    return [" ".join(rng.choices(words, k=rng.randint(5, 400))) for _ in range(count)]


def write(path, texts):
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    path.write_bytes(zstandard.compress(lines.encode()))
    return path


def corpora_of(path, store):
    return Corpora({"c": CorpusSection(path=str(path))}, store)


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(blocks, "_LARGEST_BATCH", 3000)
    monkeypatch.setattr(blocks, "_SMALLEST_BATCH", 500)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("tokens", [1, 5000, 10**7])
def test_blocks_are_the_documents_one_after_another(tmp_path, tokens):
    texts, tokenizer = documents(60), tiny_tokenizer()
    corpora = corpora_of(write(tmp_path / "d.jsonl.zst", texts), Store(tmp_path))
    found = token_blocks(corpora, "c", tokenizer, "key", 16, tokens, Store(tmp_path))
    end = tokenizer.eos_token_id
    plain = [i for t in texts for i in [*tokenizer(t)["input_ids"], end]]
    count = min(-(-tokens // 16), len(plain) // 16)
    assert found.ravel().tolist() == plain[: 16 * count]


def test_no_more_of_a_shard_is_read_than_the_tokens_need(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.integers(97, 123, 2000))) for _ in range(5000)]
    shard, store = write(tmp_path / "d.jsonl.zst", texts), Store(tmp_path)
    corpora, read = corpora_of(shard, store), []
    corpora.fingerprint("c")  # which reads all of it, once
    unpacked = files._unpacked

    class Counted:
        def __init__(self, file):
            self.file = file

        def read(self, size=-1):
            data = self.file.read(size)
            read.append(len(data))
            return data

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr(
        files, "_unpacked", lambda file, mode: unpacked(Counted(file), mode)
    )
    tokenizer = tiny_tokenizer()
    token_blocks(corpora, "c", tokenizer, "key", 64, 20_000, store)
    assert 0 < sum(read) < shard.stat().st_size / 8


KILLED = """
    import os, sys
    from harness.base import Store
    from harness.data import Corpora, CorpusSection, blocks
    from harness.testing import tiny_tokenizer

    blocks._LARGEST_BATCH, blocks._SMALLEST_BATCH = 3000, 500
    store = Store(sys.argv[2])
    corpora = Corpora({"c": CorpusSection(path=sys.argv[1])}, store)

    def report(done, total):
        if done > total // 2:
            os.kill(os.getpid(), 9)

    blocks.token_blocks(
        corpora, "c", tiny_tokenizer(), "key", 16, 4000, store, report
    )
"""


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(content)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Return a folder with a shard and the store of a process killed amid it."""
    folder = tmp_path_factory.mktemp("killed")
    shard = write(folder / "d.jsonl.zst", documents(100))
    command = [sys.executable, "-c", textwrap.dedent(KILLED), shard, folder / "broken"]
    assert subprocess.run(command, check=False).returncode == -9
    return folder


@pytest.mark.xdist_group("killed")
@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(
    ("harm", "goes_on"),
    [
        (lambda work: os.truncate(work / "tokens.int32", 10**5), True),
        (lambda work: os.truncate(work / "tokens.int32", 4000), False),
        (lambda work: flip_a_bit(work / "tokens.int32"), False),
        (lambda work: (work / "tokens.int32").unlink(), False),
        (lambda work: (work / "progress.json").write_bytes(bytes(80)), False),
        (lambda work: (work / "progress.json").write_text("[1]"), False),
    ],
)
def test_what_a_killed_process_made_is_not_made_again(
    killed, tmp_path, monkeypatch, harm, goes_on
):
    shard = killed / "d.jsonl.zst"
    whole, broken = Store(tmp_path / "whole"), Store(tmp_path / "broken")
    shutil.copytree(killed / "broken", broken.root)
    (work,) = broken.root.glob(".work/*/*")
    harm(work)

    tokenizer, made, encoded = tiny_tokenizer(), [], []

    def counting(texts, tokenizer):
        encoded.extend(texts)
        return joined_ids(texts, tokenizer)

    monkeypatch.setattr(blocks, "joined_ids", counting)
    for store in (broken, whole):
        encoded.clear()
        corpora = corpora_of(shard, store)
        found = token_blocks(corpora, "c", tokenizer, "key", 16, 4000, store)
        made.append((len(encoded), found.tobytes()))
    (again, continued), (all_of_them, straight) = made
    assert continued == straight
    assert (again < 0.7 * all_of_them) == goes_on
    assert not [*broken.root.glob(".work/*/*")]


def test_ids_are_the_tokenizers_own_and_no_setting_of_it_cuts_them(merging_tokenizer):
    texts = ["ab cd abab", "", "dcba " * 50]
    end = merging_tokenizer.eos_token_id
    plain = [
        i
        for text in texts
        for i in [*merging_tokenizer(text, add_special_tokens=False)["input_ids"], end]
    ]
    merging_tokenizer.backend_tokenizer.enable_truncation(4)
    assert joined_ids(texts, merging_tokenizer).tolist() == plain


def test_half_a_cache_of_tokens_is_made_again(tmp_path):
    shard, store = write(tmp_path / "d.jsonl.zst", documents(60)), Store(tmp_path)
    tokenizer = tiny_tokenizer()

    def blocks_of():
        corpora = corpora_of(shard, store)
        return token_blocks(corpora, "c", tokenizer, "key", 16, 2000, store).tolist()

    whole = blocks_of()
    (cache,) = tmp_path.glob("token-blocks/*/tokens.int32")
    os.truncate(cache, cache.stat().st_size // 2)
    with pytest.warns(DamagedEntry, match="bytes instead of"):
        assert blocks_of() == whole
