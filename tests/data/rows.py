"""Rows written to a file of any format that is read."""

import csv
import json

import pyarrow
import zstandard
from pyarrow import parquet


def write_rows(path, rows):
    """Write rows with what is unusual and allowed: frames, a BOM, empty lines."""
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if path.name.endswith(".zst"):
        half = lines.index(b"\n") + 1
        frames = zstandard.compress(lines[:half]), zstandard.compress(lines[half:])
        path.write_bytes(b"".join(frames))
    elif path.suffix == ".jsonl":
        path.write_bytes(b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n\r\n"))
    elif path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path
