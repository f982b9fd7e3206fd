"""Rows out of files, one by one: jsonl, jsonl.zst, parquet, csv and plain text.

Nothing is loaded whole, so that a file may be larger than memory. What is wrong with
a file is said in one sentence with the file and, where there is one, the line.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from harness.base import UsageError, unknown_name
from harness.data.fields import Fields

Row = tuple[Mapping[str, Any], str]
"""The fields of a row, and where it stands (file, and line where there are lines)."""

_CHUNK = 1 << 20
_LONGEST_SEPARATOR = 1 << 16
_LARGEST_WINDOW = 1 << 31


def read_rows(path: Path, fields: Fields, separator: str) -> Iterator[Row]:
    """Yield every row of a file, in order, with at least the `fields` it must have.

    `separator` is the regular expression between two documents of a text file, whose
    blank documents are no rows, and whose one field is the `text`.
    """
    reader = _READERS[_ending(path)]
    try:
        yield from reader(path, fields, separator)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text ({error.reason})") from error
    except OSError as error:
        cause = " ".join(str(error).split())
        raise UsageError(f"{path}: cannot be read ({cause})") from error


def readable(name: str) -> bool:
    """Say whether a file's ending is one that `read_rows` knows."""
    return any(name.endswith(ending) for ending in _READERS)


def _ending(path: Path) -> str:
    for ending in _READERS:
        if path.name.endswith(ending):
            return ending
    known = ", ".join(_READERS)
    raise UsageError(f"{path}: the ending is none of those that can be read ({known})")


def _jsonl(path: Path, fields: Fields, separator: str) -> Iterator[Row]:
    with path.open("rb") as file:
        yield from _json_lines(path, file, fields.names)


def _jsonl_zst(path: Path, fields: Fields, separator: str) -> Iterator[Row]:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    try:
        with (
            path.open("rb") as packed,
            decompressor.stream_reader(packed, read_across_frames=True) as file,
        ):
            lines = io.BufferedReader(file, _CHUNK)
            yield from _json_lines(path, lines, fields.names)
    except zstandard.ZstdError as error:
        raise UsageError(f"{path}: not a zstandard file ({error})") from error


def _json_lines(path: Path, file: IO[bytes], names: Sequence[str]) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if line.strip():
            where = f"{path}:{number}"
            row = _json_object(line, where)
            _require(names, row, where)
            yield row, where


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not JSON ({error.msg})") from error
    if not isinstance(row, dict):
        raise UsageError(f"{where}: expected a JSON object, found {type(row).__name__}")
    return row


def _require(names: Sequence[str], known: Collection[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"{where}: {unknown_name('field', name, known)}")


def _csv(path: Path, fields: Fields, separator: str) -> Iterator[Row]:
    # The default limit, 128 kB, is below the length of ordinary documents.
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        _require(fields.names, rows.fieldnames or [], str(path))
        try:
            for row in rows:
                yield row, f"{path}:{rows.line_num}"
        except csv.Error as error:
            raise UsageError(f"{path}:{rows.line_num}: not CSV ({error})") from error


def _parquet(path: Path, fields: Fields, separator: str) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            _require(fields.names, file.schema_arrow.names, str(path))
            batches = file.iter_batches(batch_size=256, columns=[*fields.names])
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                yield row, f"{path}, row {number}"
    except pyarrow.ArrowInvalid as error:
        cause = " ".join(str(error).split())
        raise UsageError(f"{path}: not a parquet file ({cause})") from error


def _plain(path: Path, fields: Fields, separator: str) -> Iterator[Row]:
    if fields.prompt is not None:
        raise UsageError(f"{path}: a text file has no field {fields.prompt!r}")
    try:
        pattern = re.compile(separator)
    except re.error as error:
        message = f"separator {separator!r} is no regular expression ({error})"
        raise UsageError(message) from error
    with path.open(encoding="utf-8-sig") as file:
        for piece in _split(file, pattern):
            if piece.strip():
                yield {fields.text: piece.strip("\n")}, str(path)


def _split(file: IO[str], separator: re.Pattern[str]) -> Iterator[str]:
    """Yield what ``separator.split(file.read())`` would, without reading it whole.

    A match near the end of what is read so far might have been longer with the rest.
    """
    rest = ""
    while chunk := file.read(max(_CHUNK, len(rest))):
        rest += chunk
        pieces, rest = _whole(rest, separator, len(rest) - _LONGEST_SEPARATOR)
        yield from pieces
    pieces, rest = _whole(rest, separator, len(rest))
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


_READERS: dict[str, Callable[[Path, Fields, str], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".jsonl.zst": _jsonl_zst,
    ".parquet": _parquet,
    ".csv": _csv,
    ".txt": _plain,
}
