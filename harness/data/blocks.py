"""The tokens of a corpus as blocks of equal size, which are what models train on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.base import Store, UsageError, content_hash
from harness.data.corpora import Corpora
from harness.data.document import Document
from harness.data.encoding import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Stands where a prompt or a reference is over; transformers ignores such labels."""

_DOCUMENTS = 64
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
    and wanted while they are made. Raises UsageError where there is no whole block.
    """
    wanted = -(-tokens // context)
    identity = [_VERSION, corpora.identity(name), tokenizer_key, context, wanted]

    def ids() -> Iterator[Blocks]:
        texts, total = corpora.all_documents(name), wanted * context
        done = 0
        for batch in _batches((document.whole for document in texts), _DOCUMENTS):
            found = joined_ids(batch, tokenizer)[: total - done]
            done += len(found)
            yield found
            report(done, total)
            if done == total:
                return

    blocks = _made_once(store, "token-blocks", "tokens", identity, context, ids)
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

    def ids() -> Iterator[Blocks]:
        encoder = TextEncoder(tokenizer, encoder_decoder=True)
        done = 0
        for document in corpora.all_documents(name):
            row = _row(name, document, encoder, context)
            done += count_tokens(row)
            yield row
            if done >= tokens:
                return

    blocks = _made_once(store, "pairs", "pairs", identity, 2 * context, ids)
    if not len(blocks):
        raise UsageError(f"corpus {name} has no pairs")
    return blocks


def count_tokens(blocks: Blocks) -> int:
    """Return how many tokens of prompts and references there are in blocks."""
    return int((blocks != IGNORED).sum())


def _made_once(
    store: Store,
    kind: str,
    file_name: str,
    identity: list[object],
    width: int,
    ids: Callable[[], Iterator[Blocks]],
) -> Blocks:
    """Return the ids as blocks [n, width] in a file of the store; a rest is cut off."""

    def build(folder: Path) -> None:
        with (folder / f"{file_name}.int32").open("wb") as file:
            for found in ids():
                file.write(found.tobytes())
            file.truncate(file.tell() - file.tell() % (width * _TOKEN.itemsize))

    folder = store.folder(kind, content_hash(identity), build)
    path = folder / f"{file_name}.int32"
    if path.stat().st_size == 0:  # which cannot be mapped
        return np.empty((0, width), dtype=_TOKEN)
    return np.memmap(path, dtype=_TOKEN, mode="r").reshape(-1, width)


def joined_ids(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> NDArray[np.int32]:
    """Return the token ids of all texts, each followed by the end-of-text token."""
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
