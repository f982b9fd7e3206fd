"""Pairs of a corpus as blocks of equal size: what an encoder-decoder trains on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.base.errors import UsageError
from harness.base.store import Store, content_hash
from harness.interfaces import Document
from harness.texts.encoding import TextEncoder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from harness.corpora import Corpora

IGNORED = -100
"""Stands where a prompt or a reference is over; transformers ignores such labels."""

_VERSION = 1
_TOKEN = np.dtype("<i4")
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
