"""The tokens of a corpus as blocks of equal size, which are what models train on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from harness.base import Store, UsageError, content_hash
from harness.data.document import Document
from harness.data.encoding import TextEncoder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from harness.data.corpora import Corpora


_DOCUMENTS = 64
_TOKEN = np.dtype("<i4")
_BLOCKS = "tokens.int32"
_BLOCKS_VERSION = 1


def token_blocks(
    corpora: Corpora,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    tokenizer_key: str,
    context: int,
    tokens: int,
    store: Store,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.int32]:
    """Return packed blocks [n, context] of a corpus's tokens, cached in the store.

    Each document is followed by the end-of-text token, and blocks cut across
    documents; a prompt and its reference are read as one text. There are enough blocks
    for `tokens`, or as many whole ones as the corpus has. `report` gets the tokens done
    and wanted while they are made.
    """
    wanted = -(-tokens // context)
    key = content_hash(
        [_BLOCKS_VERSION, corpora.identity(name), tokenizer_key, context, wanted]
    )

    def build(folder: Path) -> None:
        texts = (document.whole for document in corpora.all_documents(name))
        with (folder / _BLOCKS).open("wb") as file:
            for done in _write_tokens(file, texts, tokenizer, wanted * context):
                report(done, wanted * context)
            file.truncate(done // context * context * _TOKEN.itemsize)

    path = store.folder("token-blocks", key, build) / _BLOCKS
    if path.stat().st_size == 0:
        raise UsageError(f"corpus {name} is shorter than one block of {context} tokens")
    return np.memmap(path, dtype=_TOKEN, mode="r").reshape(-1, context)


def _write_tokens(
    file: IO[bytes],
    texts: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    wanted: int,
) -> Iterator[int]:
    """Write token ids until there are `wanted`, and yield how many there are."""
    done = 0
    for batch in _batches(texts, _DOCUMENTS):
        ids = _joined_ids(batch, tokenizer)[: wanted - done]
        file.write(ids.tobytes())
        done += len(ids)
        yield done
        if done == wanted:
            return


def _joined_ids(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> NDArray[np.int32]:
    end = tokenizer.eos_token_id
    if end is None:
        raise UsageError("the tokenizer has no end-of-text token to pack blocks with")
    # Not verbose: documents longer than the model's context are no mistake here.
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)
    return np.concatenate(
        [np.array([*ids, end], dtype=_TOKEN) for ids in encoded["input_ids"]]
    )


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


IGNORED = -100
"""Stands where a prompt or a reference is over; transformers ignores such labels."""

_VERSION = 1
_FILE = "pairs.int32"


def pair_blocks(
    corpora: Corpora,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    tokenizer_key: str,
    context: int,
    tokens: int,
    store: Store,
) -> NDArray[np.int32]:
    """Return the first pairs of a corpus [n, 2 * context], cached in the store.

    The first half of a row holds the prompt, the second the reference, each with the
    end token that the model expects, no longer than `context` and filled up with
    `IGNORED`. There are enough pairs for `tokens` in prompts and references together,
    or as many as the corpus has. Raises UsageError where it has none.
    """
    identity = [_VERSION, corpora.identity(name), tokenizer_key, context, tokens]

    def build(folder: Path) -> None:
        encoder = TextEncoder(tokenizer, encoder_decoder=True)
        done = 0
        with (folder / _FILE).open("wb") as file:
            for document in corpora.all_documents(name):
                row = _row(name, document, encoder, context)
                file.write(row.tobytes())
                done += count_tokens(row)
                if done >= tokens:
                    break

    path = store.folder("pairs", content_hash(identity), build) / _FILE
    if path.stat().st_size == 0:
        raise UsageError(f"corpus {name} has no pairs")
    return np.memmap(path, dtype=_TOKEN, mode="r").reshape(-1, 2 * context)


def count_tokens(blocks: NDArray[np.int32]) -> int:
    """Return how many tokens of prompts and references there are in blocks."""
    return int((blocks != IGNORED).sum())


def _row(
    name: str, document: Document, encoder: TextEncoder, context: int
) -> NDArray[np.int32]:
    if document.reference is None:
        raise UsageError(
            f"corpus {name} has no `reference`: an encoder-decoder model is trained on "
            "pairs of a prompt and a reference"
        )
    row = np.full(2 * context, IGNORED, dtype=_TOKEN)
    for start, ids in zip((0, context), _ids(document, encoder, context), strict=True):
        row[start : start + len(ids)] = ids
    return row


def _ids(document: Document, encoder: TextEncoder, context: int) -> Iterator[list[int]]:
    yield encoder.prompt(encoder.encode(document.text), 0, context).ids[:context]
    yield encoder.reference(document.reference or "", context)
