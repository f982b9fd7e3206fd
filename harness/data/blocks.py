"""The tokens of a corpus as blocks of equal size, which are what models train on.

They are written to a file as they come, batch by batch, and mapped into memory: how
much there is of them does not matter. While the tokenizer, which uses all cores, is at
work on one batch, the next is read; no more is read than the tokens that are wanted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from harness.base import Store, UsageError, content_hash, write_json
from harness.data.corpora import Corpora
from harness.data.document import Document
from harness.data.encoding import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Stands where a prompt or a reference is over; transformers ignores such labels."""

_LARGEST_BATCH = 1 << 21
"""Characters that are encoded at once: enough of them to keep many cores busy."""
_SMALLEST_BATCH = 1 << 14
_CHARACTERS_READ = 2
"""How many characters are read for a token that is wanted: fewer than it has, so that
the last batches are ever smaller, and hardly anything is read that is not needed."""
_TOKENS, _FILE, _PROGRESS = "token-blocks", "tokens.int32", "progress.json"
_PAIRS_FILE = "pairs.int32"
_TOKEN = np.dtype("<i4")
_VERSION = 1
"""Of what stands in blocks: part of what the store knows them by."""

Blocks = NDArray[np.int32]


def token_blocks(
    corpora: Corpora,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    tokenizer_key: str,
    context: int,
    tokens: int,
    store: Store,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Blocks:
    """Return packed blocks [n, context] of a corpus's tokens, cached in the store.

    Each document is followed by the end-of-text token, and blocks cut across
    documents; a prompt and its reference are read as one text. There are enough blocks
    for `tokens`, or as many whole ones as the corpus has. `report` gets the tokens done
    and wanted while they are made; what an interrupted call has made is kept. Raises
    UsageError where there is no whole block.
    """
    total = -(-tokens // context) * context
    identity = [_VERSION, corpora.identity(name), tokenizer_key, context]
    key = content_hash([*identity, total // context])

    def texts() -> Iterator[str]:
        return (document.whole for document in corpora.all_documents(name))

    def build(folder: Path) -> None:
        work = store.work(_TOKENS, key)
        _write_tokens(work, texts(), tokenizer, total, report)
        _cut(work / _FILE, context)
        (work / _FILE).rename(folder / _FILE)

    blocks = _mapped(store.folder(_TOKENS, key, build) / _FILE, context)
    store.discard_work(_TOKENS, key)
    if not len(blocks):
        raise UsageError(f"corpus {name} is shorter than one block of {context} tokens")
    return blocks


def pair_blocks(
    corpora: Corpora,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    tokenizer_key: str,
    context: int,
    tokens: int,
    store: Store,
) -> Blocks:
    """Return the first pairs of a corpus [n, 2 * context], cached in the store.

    The first half of a row holds the prompt, the second the reference, each with the
    end token that the model expects, no longer than `context` and filled up with
    `IGNORED`. There are enough pairs for `tokens` in prompts and references together,
    or as many as the corpus has. Raises UsageError where it has none.
    """
    identity = [_VERSION, corpora.identity(name), tokenizer_key, context, tokens]

    def rows() -> Iterator[Blocks]:
        encoder = TextEncoder(tokenizer, encoder_decoder=True)
        done = 0
        for document in corpora.all_documents(name):
            row = _row(name, document, encoder, context)
            done += count_tokens(row)
            yield row
            if done >= tokens:
                return

    def build(folder: Path) -> None:
        with (folder / _PAIRS_FILE).open("wb") as file:
            for row in rows():
                file.write(row.tobytes())

    folder = store.folder("pairs", content_hash(identity), build)
    blocks = _mapped(folder / _PAIRS_FILE, 2 * context)
    if not len(blocks):
        raise UsageError(f"corpus {name} has no pairs")
    return blocks


def count_tokens(blocks: Blocks) -> int:
    """Return how many tokens of prompts and references there are in blocks."""
    return int((blocks != IGNORED).sum())


# --- in a file ----------------------------------------------------------------------


def _write_tokens(
    work: Path,
    texts: Iterator[str],
    tokenizer: PreTrainedTokenizerBase,
    total: int,
    report: Callable[[int, int], None],
) -> None:
    """Write the ids of texts to a file in `work`, from where it was interrupted."""
    documents, done, digest = _progress(work)
    with (work / _FILE).open("ab") as file:
        file.truncate(done * _TOKEN.itemsize)
        rest = islice(texts, documents, None)
        for count, ids in _encoded(rest, tokenizer, total - done):
            file.write(ids.tobytes())
            file.flush()
            os.fsync(file.fileno())  # the progress must not be ahead of it
            digest.update(ids.tobytes())
            documents, done = documents + count, done + len(ids)
            progress = {"documents": documents, "tokens": done}
            write_json(work / _PROGRESS, {**progress, "sha256": digest.hexdigest()})
            report(done, total)


def _progress(work: Path) -> tuple[int, int, hashlib._Hash]:
    """Return how many documents were read, how many tokens were written, their hash.

    Where the file is not what was written, that is nothing.
    """
    try:
        found = json.loads((work / _PROGRESS).read_text())
        with (work / _FILE).open("rb") as file:
            digest = _hash_of(file, found["tokens"] * _TOKEN.itemsize)
        if digest.hexdigest() == found["sha256"]:
            return found["documents"], found["tokens"], digest
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # nothing was written, or what is there is damaged
    return 0, 0, hashlib.sha256()


def _hash_of(file: BinaryIO, size: int) -> hashlib._Hash:
    """Return the hash of the first bytes of a file."""
    digest = hashlib.sha256()
    while part := file.read(min(size, 1 << 20)):
        digest.update(part)
        size -= len(part)
    return digest


def _cut(path: Path, width: int) -> None:
    """Cut off what is no whole block."""
    size = path.stat().st_size
    os.truncate(path, size - size % (width * _TOKEN.itemsize))


def _mapped(path: Path, width: int) -> Blocks:
    """Return the ids in a file as blocks [n, width]."""
    if path.stat().st_size == 0:  # which cannot be mapped
        return np.empty((0, width), dtype=_TOKEN)
    return np.memmap(path, dtype=_TOKEN, mode="r").reshape(-1, width)


# --- as tokens ----------------------------------------------------------------------


def _encoded(
    texts: Iterator[str], tokenizer: PreTrainedTokenizerBase, wanted: int
) -> Iterator[tuple[int, Blocks]]:
    """Yield the ids of batches of texts, and how many texts they are of.

    There are `wanted` ids in all, or as many as the texts have.
    """
    pending: deque[tuple[list[str], Future[Blocks]]] = deque()
    with ThreadPoolExecutor(1) as encoder:
        while wanted:
            known = sum(len(text) for batch, _ in pending for text in batch)
            unread = _CHARACTERS_READ * wanted - known
            if not pending or (unread > 0 and len(pending) < 2):
                size = min(max(unread, _SMALLEST_BATCH), _LARGEST_BATCH)
                batch = _read(texts, size)
                if batch:
                    pending.append(
                        (batch, encoder.submit(joined_ids, batch, tokenizer))
                    )
                    continue
            if not pending:
                return
            batch, encoding = pending.popleft()
            ids = encoding.result()[:wanted]
            wanted -= len(ids)
            yield len(batch), ids


def _read(texts: Iterator[str], characters: int) -> list[str]:
    """Return the next texts that have so many characters together, or all the rest."""
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        characters -= len(text)
        if characters <= 0:
            break
    return batch


def joined_ids(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> NDArray[np.int32]:
    """Return the token ids of all texts, each followed by the end-of-text token."""
    end = tokenizer.eos_token_id
    if end is None:
        raise UsageError("the tokenizer has no end-of-text token to pack blocks with")
    # The library itself: transformers would make lists of masks as well.
    library = tokenizer.backend_tokenizer
    library.no_truncation()
    library.no_padding()
    encoded = library.encode_batch_fast(list(texts), add_special_tokens=False)
    return np.concatenate(
        [np.array([*each.ids, end], dtype=_TOKEN) for each in encoded]
    )


def _row(name: str, document: Document, encoder: TextEncoder, context: int) -> Blocks:
    if document.reference is None:
        raise UsageError(
            f"corpus {name} has no `reference`: an encoder-decoder model is trained on "
            "pairs of a prompt and a reference"
        )
    prompt = encoder.prompt(encoder.encode(document.text), 0, context).ids[:context]
    reference = encoder.reference(document.reference, context)
    row = np.full(2 * context, IGNORED, dtype=_TOKEN)
    row[: len(prompt)] = prompt
    row[context : context + len(reference)] = reference
    return row
