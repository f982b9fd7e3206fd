"""The corpora of a suite: where documents come from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from harness.base import (
    HarnessError,
    MissingResource,
    Store,
    UsageError,
    fingerprint_files,
    unknown_name,
)
from harness.data.builtin import BUILTIN_TEXTS
from harness.data.document import Document
from harness.data.fields import Fields
from harness.data.files import Row, read_rows
from harness.data.hub import HubRows, HubSplit
from harness.data.patterns import matching
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
        return islice(self.all_documents(name), self._limit)

    def all_documents(self, name: str) -> Iterator[Document]:
        """Yield all documents of a corpus's slice, in order, blank ones left out.

        A document's id is its place among all rows of the source, whatever the slice.
        """
        source, fields = self._source(name), _fields(self._section(name))
        start, stop = self._bounds(name)
        here = source.first
        behind = None if stop is None else max(start, stop) - here
        rows = islice(source.rows(), start - here, behind)
        for number, (row, where) in enumerate(rows, start):
            document = fields.document(str(number), row, where)
            if not _blank(document):
                yield document

    def missing(self, name: str) -> list[str]:
        """Say what keeps a corpus from being read here, a sentence for each."""
        try:
            fields = _fields(self._section(name))
            for row, where in islice(self._source(name).rows(), 1):
                fields.document("0", row, where)
        except HarnessError as error:
            return [str(error)]
        return []

    def files(self, name: str) -> list[Path]:
        """Return the local files of a corpus; none of one that has no path.

        Raises MissingResource where its path leads to none.
        """
        source = self._source(name)
        return source.files() if isinstance(source, _LocalFiles) else []

    def fingerprint(self, name: str) -> str:
        """Identify the source: ``sha256:...`` of contents, or ``hub:ID@COMMIT``."""
        return self._source(name).fingerprint()

    def fetch(self, name: str) -> None:
        """Download what a corpus of the hub lacks on this machine."""
        source = self._source(name)
        if isinstance(source, HubRows):
            source.fetch()

    def identity(self, name: str) -> dict[str, Any]:
        """Return what defines the documents of a corpus, as JSON values."""
        section = self._section(name)
        return {**section.definition, "fingerprint": self.fingerprint(name)}

    def _section(self, name: str) -> CorpusSection:
        if name not in self._sections:
            raise UsageError(unknown_name("corpus", name, self._sections))
        return self._sections[name]

    def _source(self, name: str) -> _Source:
        section = self._section(name)
        if section.builtin is not None:
            return _Builtin(section.builtin, section.text)
        fields = _fields(section)
        if section.path is not None:
            return _LocalFiles(section.path, fields, section.separator, self._store)
        split = HubSplit(
            str(section.dataset), section.revision, section.split, section.files
        )
        return HubRows(split, fields, section.separator, self._part(name), self._store)

    def _part(self, name: str) -> tuple[int, int] | None:
        """Return the bounds of a slice that states its end in rows."""
        start, stop = self._ends(name)
        if not stop or "%" in start + stop:
            return None
        return int(start or 0), int(stop)

    def _ends(self, name: str) -> tuple[str, str]:
        start, stop = self._section(name).slice.split(":")
        return start, stop

    def _bounds(self, name: str) -> tuple[int, int | None]:
        start, stop = (self._bound(name, end) for end in self._ends(name))
        return start or 0, stop

    def _bound(self, name: str, text: str) -> int | None:
        if not text:
            return None
        if not text.endswith("%"):
            return int(text)
        if name not in self._sizes:
            self._sizes[name] = sum(1 for _ in self._source(name).rows())
        return self._sizes[name] * int(text[:-1]) // 100


class _Source(Protocol):
    """Where the rows of a corpus come from."""

    @property
    def first(self) -> int:
        """The number of the first row that is on this machine."""

    def rows(self) -> Iterator[Row]:
        """Yield the rows that are on this machine, in order."""

    def fingerprint(self) -> str:
        """Identify the source by what it holds."""


@dataclass(frozen=True)
class _Builtin:
    name: str
    field: str
    first = 0

    def rows(self) -> Iterator[Row]:
        for text in self._texts():
            yield {self.field: text}, self.name

    def fingerprint(self) -> str:
        text = "\0".join(self._texts())
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def _texts(self) -> list[str]:
        if self.name not in BUILTIN_TEXTS:
            raise UsageError(unknown_name("builtin corpus", self.name, BUILTIN_TEXTS))
        return BUILTIN_TEXTS[self.name]()


@dataclass(frozen=True)
class _LocalFiles:
    path: str
    fields: Fields
    separator: str
    store: Store
    first = 0

    def rows(self) -> Iterator[Row]:
        for file in self.files():
            yield from read_rows(file, self.fields, self.separator)

    def fingerprint(self) -> str:
        return fingerprint_files(self.files(), self.store.root / "fingerprints.json")

    def files(self) -> list[Path]:
        """Return the files that the path leads to; raise MissingResource for none."""
        found = map(Path, matching(str(Path(self.path).expanduser())))
        files = [file for file in found if file.is_file()]
        if not files and Path(self.path).expanduser().is_dir():
            raise MissingResource(f"{self.path} is a folder: name its files, as by /*")
        if not files:
            raise MissingResource(f"{self.path} is not there")
        return files


def _fields(section: CorpusSection) -> Fields:
    return Fields(
        text=section.text,
        prompt=section.prompt,
        reference=section.reference,
        choices=section.choices,
        gold=section.gold,
        prefix=section.prefix or "",
        cluster=section.cluster,
    )


def _blank(document: Document) -> bool:
    parts = (document.text, document.reference)
    return any(part is not None and not part.strip() for part in parts)
