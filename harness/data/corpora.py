"""The corpora of a suite: where documents come from, and packed blocks of tokens."""

from __future__ import annotations

import glob
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base import (
    HarnessError,
    MissingResource,
    Store,
    UsageError,
    fingerprint_files,
    unknown_name,
)
from harness.data import hub as hub_datasets
from harness.data.builtin import BUILTIN_TEXTS
from harness.data.document import Document
from harness.data.fields import Fields
from harness.data.files import Row, read_rows
from harness.data.hub import HubSplit

if TYPE_CHECKING:
    from harness.data.sections import CorpusSection


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
