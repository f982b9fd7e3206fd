"""The corpora of a suite: where documents come from, and packed blocks of tokens."""

from __future__ import annotations

import glob
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from harness.base.errors import HarnessError, MissingResource, UsageError, unknown_name
from harness.base.store import Store, content_hash, fingerprint_files
from harness.interfaces import Document
from harness.texts import hub as hub_datasets
from harness.texts.builtin import BUILTIN_TEXTS
from harness.texts.fields import Fields
from harness.texts.files import Row, read_rows
from harness.texts.hub import HubSplit

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from harness.suite import CorpusSection

_DOCUMENTS = 64
_TOKEN = np.dtype("<i4")
_BLOCKS = "tokens.int32"
_BLOCKS_VERSION = 1


class Corpora:
    """Reads the corpora of a suite by their names.

    `limit` cuts what metrics see, never what training and examples are taken from.
    """

    def __init__(
        self,
        sections: Mapping[str, CorpusSection],
        store: Store,
        limit: int | None = None,
    ) -> None:
        self._sections = sections
        self._store = store
        self._limit = limit
        self._sizes: dict[str, int] = {}

    def documents(self, name: str) -> Iterator[Document]:
        """Yield the documents of a corpus, no more than the limit."""
        return itertools.islice(self.all_documents(name), self._limit)

    def all_documents(self, name: str) -> Iterator[Document]:
        """Yield all documents of a corpus's slice, in order, blank ones left out.

        A document's id is its place among all rows of the source, whatever the slice.
        """
        start, stop = self._bounds(name)
        fields = _fields(self._section(name))
        rows = itertools.islice(enumerate(self._rows(name)), start, stop)
        for index, (row, where) in rows:
            document = fields.document(str(index), row, where)
            if not _blank(document):
                yield document

    def missing(self, name: str) -> list[str]:
        """Say what keeps a corpus from being read here, a sentence for each."""
        try:
            for row, where in itertools.islice(self._rows(name), 1):
                _fields(self._section(name)).document("0", row, where)
        except HarnessError as error:
            return [f"corpus {name}: {error}"]
        return []

    def fingerprint(self, name: str) -> str:
        """Identify the source: ``sha256:...`` of contents, or ``hub:ID@COMMIT``."""
        section = self._section(name)
        if section.builtin is not None:
            text = "\0".join(self._builtin(name))
            return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        if section.dataset is not None:
            return f"hub:{section.dataset}@{self._listing(name).commit}"
        cache = self._store.root / "fingerprints.json"
        return fingerprint_files(self._local_files(name), cache)

    def fetch(self, name: str) -> None:
        """Download what a corpus of the hub lacks on this machine."""
        section = self._section(name)
        if section.dataset is not None:
            hub_datasets.fetch(_hub_split(section), self._store)

    def identity(self, name: str) -> dict[str, Any]:
        """Return what defines the documents of a corpus, as JSON values."""
        section = self._section(name)
        return {**section.definition, "fingerprint": self.fingerprint(name)}

    def _section(self, name: str) -> CorpusSection:
        if name not in self._sections:
            raise UsageError(unknown_name("corpus", name, self._sections))
        return self._sections[name]

    def _rows(self, name: str) -> Iterator[Row]:
        section = self._section(name)
        if section.builtin is not None:
            for text in self._builtin(name):
                yield {section.text: text}, str(section.builtin)
            return
        for file in self._files(name):
            yield from read_rows(file, _fields(section), section.separator)

    def _files(self, name: str) -> list[Path]:
        if self._section(name).dataset is not None:
            return self._listing(name).local()
        return self._local_files(name)

    def _builtin(self, name: str) -> list[str]:
        builtin = str(self._section(name).builtin)
        if builtin not in BUILTIN_TEXTS:
            raise UsageError(unknown_name("builtin corpus", builtin, BUILTIN_TEXTS))
        return BUILTIN_TEXTS[builtin]()

    def _local_files(self, name: str) -> list[Path]:
        stated = str(self._section(name).path)
        path = Path(stated).expanduser()
        # A name that holds glob's own characters is taken literally where it exists.
        found = [path] if path.exists() else map(Path, glob.glob(str(path)))  # noqa: PTH207
        files = sorted(file for file in found if file.is_file())
        if not files:
            raise MissingResource(f"{stated} is not there")
        return files

    def _listing(self, name: str) -> hub_datasets.Listing:
        split = _hub_split(self._section(name))
        listing = hub_datasets.find(split, self._store)
        if listing is None:
            hint = "`harness prefetch SUITE` fetches it where there is a network"
            raise MissingResource(f"{split} is not on this machine; {hint}")
        return listing

    def _bounds(self, name: str) -> tuple[int, int | None]:
        start, stop = self._section(name).slice.split(":")
        return self._bound(name, start) or 0, self._bound(name, stop)

    def _bound(self, name: str, text: str) -> int | None:
        if not text:
            return None
        if not text.endswith("%"):
            return int(text)
        if name not in self._sizes:
            self._sizes[name] = sum(1 for _ in self._rows(name))
        return self._sizes[name] * int(text[:-1]) // 100


def _fields(section: CorpusSection) -> Fields:
    return Fields(
        text=section.text,
        prompt=section.prompt,
        reference=section.reference,
        choices=section.choices,
        gold=section.gold,
        prefix=section.prefix or "",
    )


def _blank(document: Document) -> bool:
    parts = (document.text, document.reference)
    return any(part is not None and not part.strip() for part in parts)


def _hub_split(section: CorpusSection) -> HubSplit:
    return HubSplit(
        str(section.dataset), section.revision, section.split, section.files
    )


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
