"""Datasets of the Hugging Face hub, as files in its local cache.

`fetch` finds out which files make up a split, downloads them, and writes down their
names and the commit in the store. From then on everything is local: whether a dataset
is there is known at once, and a branch that moves on the hub moves nothing here.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from harness.base import MissingResource, Store, UsageError, content_hash, write_json
from harness.data.files import readable

_KIND = "hub-datasets"
_LISTING = "files.json"


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

    def local(self) -> list[Path]:
        """Return the paths of those files that are on this machine."""
        from huggingface_hub import try_to_load_from_cache

        found = (
            try_to_load_from_cache(
                self.dataset, name, revision=self.commit, repo_type="dataset"
            )
            for name in self.files
        )
        return [Path(path) for path in found if isinstance(path, str)]


def find(split: HubSplit, store: Store) -> Listing | None:
    """Return the listing if all of its files are on this machine."""
    folder = store.find(_KIND, split.key)
    if folder is None:
        return None
    stored = json.loads((folder / _LISTING).read_text(encoding="utf-8"))
    listing = Listing(stored["dataset"], stored["commit"], tuple(stored["files"]))
    return listing if len(listing.local()) == len(listing.files) else None


def fetch(split: HubSplit, store: Store) -> None:
    """Download the files of a split that are not here yet."""
    from huggingface_hub import hf_hub_download

    def build(folder: Path) -> None:
        write_json(folder / _LISTING, asdict(_ask_hub(split)))

    folder = store.folder(_KIND, split.key, build)
    stored = json.loads((folder / _LISTING).read_text(encoding="utf-8"))
    for name in stored["files"]:
        try:
            hf_hub_download(
                split.dataset, name, revision=stored["commit"], repo_type="dataset"
            )
        except Exception as error:
            raise _unreachable(split, error) from error


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
    kinds = {(str(p.parent), "".join(p.suffixes[-1:])) for p in map(_path, chosen)}
    if split.files is None and len(kinds) > 1:
        places = ", ".join(sorted(f"{parent}/*{end}" for parent, end in kinds))
        raise UsageError(f"{split}: in several places, name one by `files`: {places}")
    return tuple(sorted(chosen))


def _path(name: str) -> PurePosixPath:
    return PurePosixPath(name)


def _ask_hub(split: HubSplit) -> Listing:
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(split.dataset, revision=split.revision)
    except Exception as error:
        raise _unreachable(split, error) from error
    names = [file.rfilename for file in info.siblings or []]
    return Listing(split.dataset, str(info.sha), split_files(names, split))


def _unreachable(split: HubSplit, error: Exception) -> MissingResource:
    # The hub's client raises many unrelated types, which differ between versions.
    cause = str(error).strip().split("\n")[0] or type(error).__name__
    return MissingResource(f"{split} cannot be fetched: {cause}")
