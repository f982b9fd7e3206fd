"""Rows out of files, one by one: jsonl, jsonl.zst, parquet, csv and plain text.

They are streamed, from this machine (a path) or from the hub (`hf://...`): a file may
be larger than memory, and no more of it is read than is wanted. What is wrong with a
file is said in one sentence with the file and, where there is one, the line.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness.base import UsageError, replaced, unknown_name
from harness.data.fields import Fields

if TYPE_CHECKING:
    from datasets import IterableDataset

Row = tuple[Mapping[str, Any], object]
"""The fields of a row, and where it stands, as text says it (file, and line)."""

_CHUNK = 1 << 18
_ROWS_AT_ONCE = 128
_LONGEST_SEPARATOR = 1 << 16
_LARGEST_WINDOW = 1 << 31


def read_rows(file: Path | str, fields: Fields, separator: str) -> Iterator[Row]:
    """Yield every row of a file, in order, with at least the `fields` it must have.

    `separator` is the regular expression between two documents of a text file, whose
    blank documents are no rows, and whose one field is the `text`. Raises UsageError
    where the contents are not what the ending says, and Unreadable, one of those,
    where the file cannot be read at all.
    """
    import zstandard

    ending = _ending(str(file))
    try:
        yield from _READERS[ending](str(file), fields, separator)
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not UTF-8 text ({error.reason})") from error
    except (ValueError, zstandard.ZstdError) as error:
        cause = " ".join(str(error).split())
        raise UsageError(f"{file}: not a {ending} file ({cause})") from error
    except OSError as error:
        cause = " ".join(str(error).split())
        raise Unreadable(f"{file}: cannot be read ({cause})") from error


class Unreadable(UsageError):
    """A file that is not there, or whose disk or server does not give it."""


def readable(name: str) -> bool:
    """Say whether a file's ending is one that `read_rows` knows."""
    return name.endswith(tuple(_READERS))


def _ending(name: str) -> str:
    for ending in _READERS:
        if name.endswith(ending):
            return ending
    known = ", ".join(_READERS)
    raise UsageError(f"{name}: the ending is none of those that can be read ({known})")


# --- formats ------------------------------------------------------------------------


def _jsonl(file: str, fields: Fields, separator: str) -> Iterator[Row]:
    # The `json` builder guesses types: of texts that look like dates it makes dates,
    # and of a missing field a null. So it is the `text` builder that reads the lines.
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            where = f"{file}:{number}"
            row = _json_object(line, where)
            _require(fields.names, row, where)
            yield row, where


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not JSON ({error.msg})") from error
    if not isinstance(row, dict):
        raise UsageError(f"{where}: expected a JSON object, found {type(row).__name__}")
    return row


def _require(names: Sequence[str], known: Collection[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"{where}: {unknown_name('field', name, known)}")


def _csv(file: str, fields: Fields, separator: str) -> Iterator[Row]:
    from datasets import Features, Value

    header = next(_csv_records(file), [])
    _require(fields.names, header, file)
    names = list(dict.fromkeys(fields.names))
    rows = _rows(
        "csv",
        file,
        features=Features({name: Value("string") for name in names}),
        usecols=names,
        index_col=False,
        na_filter=False,
        keep_default_na=False,
        encoding="utf-8-sig",
        chunksize=_ROWS_AT_ONCE,
    )
    for number, row in enumerate(rows, 1):
        yield row, _CsvPlace(file, number)


def _csv_records(file: str) -> Iterator[list[str]]:
    # The default limit, 128 kB, is below the length of ordinary documents.
    csv.field_size_limit(2**31 - 1)
    return csv.reader(_lines(file, encoding="utf-8-sig"))


@dataclass(frozen=True)
class _CsvPlace:
    """Where a row of a csv stands; its line is looked for when it is asked for."""

    file: str
    number: int

    def __str__(self) -> str:
        records: Any = _csv_records(self.file)
        rows = (record for record in records if record)
        for _ in zip(range(self.number + 1), rows, strict=False):
            pass
        return f"{self.file}:{records.line_num}"


def _parquet(file: str, fields: Fields, separator: str) -> Iterator[Row]:
    # `datasets` reads parquet by a scanner whose threads outlive a reader that stops
    # early, and then abort the process at its end. This one has no such threads.
    import fsspec
    from pyarrow import parquet

    with fsspec.open(file) as opened, parquet.ParquetFile(opened) as table:
        _require(fields.names, table.schema_arrow.names, file)
        names = list(dict.fromkeys(fields.names))
        batches = table.iter_batches(_ROWS_AT_ONCE, columns=names, use_threads=False)
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield row, f"{file}, row {number}"


def _text(file: str, fields: Fields, separator: str) -> Iterator[Row]:
    for name in (fields.prompt, fields.cluster):
        if name is not None:
            raise UsageError(f"{file}: a text file has no field {name!r}")
    try:
        pattern = re.compile(separator)
    except re.error as error:
        message = f"separator {separator!r} is no regular expression ({error})"
        raise UsageError(message) from error
    for piece in _split(_lines(file, encoding="utf-8-sig"), pattern):
        if piece.strip():
            yield {fields.text: piece.strip("\n")}, file


def _split(lines: Iterable[str], separator: re.Pattern[str]) -> Iterator[str]:
    """Yield what ``separator.split("".join(lines))`` would, without joining them all.

    A match near the end of what is read so far might have been longer with the rest.
    """
    rest, waiting, length = "", [], 0
    for line in lines:
        waiting.append(line)
        length += len(line)
        if length >= max(_CHUNK, len(rest)):
            text = rest + "".join(waiting)
            pieces, rest = _whole(text, separator, len(text) - _LONGEST_SEPARATOR)
            yield from pieces
            waiting, length = [], 0
    text = rest + "".join(waiting)
    pieces, rest = _whole(text, separator, len(text))
    yield from pieces
    yield rest


def _whole(
    text: str, separator: re.Pattern[str], settled: int
) -> tuple[list[str], str]:
    pieces, start = [], 0
    for match in separator.finditer(text):
        if match.end() > settled:
            break
        if match.group():
            pieces.append(text[start : match.start()])
            start = match.end()
    return pieces, text[start:]


_READERS: dict[str, Callable[[str, Fields, str], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".jsonl.zst": _jsonl,
    ".parquet": _parquet,
    ".csv": _csv,
    ".txt": _text,
}


# --- datasets -----------------------------------------------------------------------


def _lines(file: str, encoding: str = "utf-8") -> Iterator[str]:
    """Yield the lines of a file with their ends, each of which is one newline."""
    rows = _rows(
        "text", file, encoding=encoding, keep_linebreaks=True, chunksize=_CHUNK
    )
    return (row["text"] for row in rows)


def _rows(builder: str, file: str, **options: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of one file, as one of the builders of `datasets` reads them."""
    with _quietly():
        dataset = _streamed(builder, file, options)
        batches = iter(dataset.iter(batch_size=_ROWS_AT_ONCE))
    while True:
        with _quietly():
            batch = next(batches, None)
        if batch is None:
            return
        yield from batch.to_pylist()


def _streamed(builder: str, file: str, options: dict[str, Any]) -> IterableDataset:
    import datasets
    import fsspec.compression

    fsspec.compression.register_compression("zstd", _unpacked, "zst", force=True)
    with (
        # It would tell a server of every builder that is used.
        replaced(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False),
        # It would import torch to read a file.
        replaced(datasets.config, "TORCH_AVAILABLE", "torch" in sys.modules),
    ):
        dataset = datasets.load_dataset(
            builder,
            data_files=[glob.escape(file)],
            split="train",
            streaming=True,
            cache_dir="memory://",  # or else it would lock files in a cache on disk
            **options,
        )
        return dataset.with_format("arrow")


def _unpacked(packed: IO[bytes], mode: str = "rb") -> IO[bytes]:
    """Open a zstandard file of any window and of any number of frames."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    opened = decompressor.stream_reader(packed, read_across_frames=True)
    return io.BufferedReader(opened, _CHUNK)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep `datasets` from logging faults, which are raised and said by us."""
    logger = logging.getLogger("datasets")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
