"""Texts out of files, one by one: jsonl, jsonl.zst, parquet, csv and plain text.

Nothing is loaded whole, so that a file may be larger than memory. What is wrong with
a file is said in one sentence with the file and, where there is one, the line.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from harness.errors import UsageError, unknown_name

_CHUNK = 1 << 20
_LONGEST_SEPARATOR = 1 << 16
_LARGEST_WINDOW = 1 << 31


def read_texts(path: Path, field: str, separator: str) -> Iterator[str]:
    """Yield the text of every row of a file, in order; it may be empty.

    `field` names the text in jsonl, parquet and csv; `separator` is the regular
    expression between two documents of a text file, whose blank documents are no rows.
    """
    reader = _READERS[_ending(path)]
    try:
        yield from reader(path, field, separator)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text ({error.reason})") from error
    except OSError as error:
        cause = " ".join(str(error).split())
        raise UsageError(f"{path}: cannot be read ({cause})") from error


def readable(name: str) -> bool:
    """Say whether a file's ending is one that `read_texts` knows."""
    return any(name.endswith(ending) for ending in _READERS)


def _ending(path: Path) -> str:
    for ending in _READERS:
        if path.name.endswith(ending):
            return ending
    known = ", ".join(_READERS)
    raise UsageError(f"{path}: the ending is none of those that can be read ({known})")


def _jsonl(path: Path, field: str, separator: str) -> Iterator[str]:
    with path.open("rb") as file:
        yield from _json_lines(path, file, field)


def _jsonl_zst(path: Path, field: str, separator: str) -> Iterator[str]:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    try:
        with (
            path.open("rb") as packed,
            decompressor.stream_reader(packed, read_across_frames=True) as file,
        ):
            yield from _json_lines(path, io.BufferedReader(file, _CHUNK), field)
    except zstandard.ZstdError as error:
        raise UsageError(f"{path}: not a zstandard file ({error})") from error


def _json_lines(path: Path, file: IO[bytes], field: str) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        if line.strip():
            where = f"{path}:{number}"
            yield _text(_json_object(line, where), field, where)


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not JSON ({error.msg})") from error
    if not isinstance(row, dict):
        raise UsageError(f"{where}: expected a JSON object, found {type(row).__name__}")
    return row


def _text(row: dict[str, Any], field: str, where: str) -> str:
    if field not in row:
        raise UsageError(f"{where}: {unknown_name('field', field, row)}")
    text = row[field]
    if text is None:
        return ""
    if not isinstance(text, str):
        kind = type(text).__name__
        raise UsageError(f"{where}: field {field!r} holds {kind}, not text")
    return text


def _csv(path: Path, field: str, separator: str) -> Iterator[str]:
    # The default limit, 128 kB, is below the length of ordinary documents.
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if field not in (known := rows.fieldnames or []):
            raise UsageError(f"{path}: {unknown_name('field', field, known)}")
        try:
            for row in rows:
                yield row[field] or ""
        except csv.Error as error:
            raise UsageError(f"{path}:{rows.line_num}: not CSV ({error})") from error


def _parquet(path: Path, field: str, separator: str) -> Iterator[str]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            known = file.schema_arrow.names
            if field not in known:
                raise UsageError(f"{path}: {unknown_name('field', field, known)}")
            for batch in file.iter_batches(batch_size=256, columns=[field]):
                for row in batch.to_pylist():
                    yield _text(row, field, str(path))
    except pyarrow.ArrowInvalid as error:
        cause = " ".join(str(error).split())
        raise UsageError(f"{path}: not a parquet file ({cause})") from error


def _plain(path: Path, field: str, separator: str) -> Iterator[str]:
    try:
        pattern = re.compile(separator)
    except re.error as error:
        message = f"separator {separator!r} is no regular expression ({error})"
        raise UsageError(message) from error
    with path.open(encoding="utf-8-sig") as file:
        for piece in _split(file, pattern):
            if piece.strip():
                yield piece.strip("\n")


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


_READERS: dict[str, Callable[[Path, str, str], Iterator[str]]] = {
    ".jsonl": _jsonl,
    ".jsonl.zst": _jsonl_zst,
    ".parquet": _parquet,
    ".csv": _csv,
    ".txt": _plain,
}
