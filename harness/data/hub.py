"""Datasets of the Hugging Face hub: fetched once, then read without a network.

`fetch` finds out which files make up a split and writes down their names and the commit
in the store. Of a slice that states its end, it streams those rows and keeps nothing
else, in the store; of any other, it downloads the files, into the hub's cache. From
then on everything is local: whether a dataset is there is known at once, and a branch
that moves on the hub moves nothing here.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path, PurePosixPath

from harness.base import (
    HarnessError,
    MissingResource,
    Store,
    UsageError,
    content_hash,
    write_json,
)
from harness.data.fields import Fields
from harness.data.files import Row, Unreadable, read_rows, readable

_KIND = "hub-datasets"
_LISTING = "files.json"
_PART = "rows.jsonl.zst"


@dataclass(frozen=True)
class HubSplit:
    """What a suite says about a dataset of the hub."""

    dataset: str
    revision: str | None
    split: str
    files: str | None

    def __str__(self) -> str:
        which = self.files or f"split {self.split}"
        return f"dataset {self.dataset} ({which}, revision {self.revision or 'main'})"

    @property
    def key(self) -> str:
        """What the store knows its listing by."""
        return content_hash(asdict(self))


@dataclass(frozen=True)
class Listing:
    """The files of a split, at one commit."""

    dataset: str
    commit: str
    files: tuple[str, ...]

    @property
    def addresses(self) -> list[str]:
        """Where `datasets` streams the files from."""
        folder = f"hf://datasets/{self.dataset}@{self.commit}"
        return [f"{folder}/{name}" for name in self.files]

    def local(self) -> list[Path]:
        """Return the paths of those files that are in the hub's cache."""
        from huggingface_hub import try_to_load_from_cache

        found = (
            try_to_load_from_cache(
                self.dataset, name, revision=self.commit, repo_type="dataset"
            )
            for name in self.files
        )
        return [Path(path) for path in found if isinstance(path, str)]


@dataclass(frozen=True)
class HubRows:
    """The rows of a split, of which a corpus reads a slice."""

    split: HubSplit
    fields: Fields
    separator: str
    part: tuple[int, int] | None
    """The first row of the slice and the one behind its last, where those are known
    without the number of all rows."""
    store: Store

    @property
    def first(self) -> int:
        """The number of the first row that is on this machine."""
        _, part = self._found()
        return 0 if part is None or self.part is None else self.part[0]

    def rows(self) -> Iterator[Row]:
        """Yield the rows that are on this machine: all, or those of the part."""
        listing, part = self._found()
        return self._read(listing.local() if part is None else [part])

    def fingerprint(self) -> str:
        """Identify the dataset by its commit."""
        listing, _ = self._found()
        return f"hub:{listing.dataset}@{listing.commit}"

    def fetch(self) -> None:
        """Download what is not here yet."""
        self.store.folder(
            _KIND,
            self.split.key,
            lambda folder: write_json(folder / _LISTING, asdict(_ask_hub(self.split))),
        )
        listing = self._listing()
        assert listing is not None
        if self.part is None:
            _download(listing, self.split)
        elif not self._whole(listing):
            self.store.folder(
                _KIND, self._key(listing), lambda folder: self._stream(listing, folder)
            )

    def _found(self) -> tuple[Listing, Path | None]:
        """Return the listing, and where the part is unless all files are here."""
        listing = self._listing()
        if listing is not None:
            if self._whole(listing):
                return listing, None
            folder = self.store.find(_KIND, self._key(listing))
            if self.part is not None and folder is not None:
                return listing, folder / _PART
        hint = "`harness prefetch SUITE` fetches it where there is a network"
        raise MissingResource(f"{self.split} is not on this machine; {hint}")

    def _listing(self) -> Listing | None:
        folder = self.store.find(_KIND, self.split.key)
        if folder is None:
            return None
        stored = json.loads((folder / _LISTING).read_text(encoding="utf-8"))
        return Listing(stored["dataset"], stored["commit"], tuple(stored["files"]))

    def _whole(self, listing: Listing) -> bool:
        return len(listing.local()) == len(listing.files)

    def _key(self, listing: Listing) -> str:
        """What the store knows the part by."""
        return content_hash([asdict(listing), self.part, self._names, self.separator])

    @property
    def _names(self) -> list[str]:
        return list(self.fields.names)

    def _read(self, files: Sequence[Path | str]) -> Iterator[Row]:
        return chain.from_iterable(
            read_rows(file, self.fields, self.separator) for file in files
        )

    def _stream(self, listing: Listing, folder: Path) -> None:
        """Write the rows of the part, once each is known to be a document."""
        import zstandard

        assert self.part is not None
        start, stop = self.part
        rows = islice(enumerate(self._read(listing.addresses)), start, stop)
        try:
            with zstandard.open(folder / _PART, "wt", encoding="utf-8") as file:
                for number, (row, where) in rows:
                    self.fields.document(str(number), row, where)
                    kept = {name: row[name] for name in self._names}
                    file.write(json.dumps(kept) + "\n")
        except Unreadable as error:
            raise _unreachable(self.split, error) from error
        except HarnessError:
            raise
        except Exception as error:
            raise _unreachable(self.split, error) from error


def split_files(names: Sequence[str], split: HubSplit) -> tuple[str, ...]:
    """Choose the files of a split among all files of a dataset.

    They match the stated pattern, or hold the split's name as a word of their path
    (``data/train-00000-of-00002.parquet``, ``train/00.jsonl.zst``, ``test.csv``).
    """
    if split.files is not None:
        chosen = [name for name in names if fnmatch.fnmatch(name, split.files)]
    else:
        word = re.compile(rf"(?<![A-Za-z0-9]){re.escape(split.split)}(?![A-Za-z0-9])")
        chosen = [name for name in names if readable(name) and word.search(name)]
    if not chosen:
        raise UsageError(f"{split}: no file of the dataset is called so")
    paths = map(PurePosixPath, chosen)
    kinds = {(str(path.parent), "".join(path.suffixes[-1:])) for path in paths}
    if split.files is None and len(kinds) > 1:
        places = ", ".join(sorted(f"{parent}/*{end}" for parent, end in kinds))
        raise UsageError(f"{split}: in several places, name one by `files`: {places}")
    return tuple(sorted(chosen))


def _ask_hub(split: HubSplit) -> Listing:
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(split.dataset, revision=split.revision)
    except Exception as error:
        raise _unreachable(split, error) from error
    names = [file.rfilename for file in info.siblings or []]
    return Listing(split.dataset, str(info.sha), split_files(names, split))


def _download(listing: Listing, split: HubSplit) -> None:
    from huggingface_hub import hf_hub_download

    for name in listing.files:
        try:
            hf_hub_download(
                listing.dataset, name, revision=listing.commit, repo_type="dataset"
            )
        except Exception as error:
            raise _unreachable(split, error) from error


def _unreachable(split: HubSplit, error: Exception) -> MissingResource:
    # The hub's client raises many unrelated types, which differ between versions.
    cause = str(error).strip().split("\n")[0] or type(error).__name__
    return MissingResource(f"{split} cannot be fetched: {cause}")
