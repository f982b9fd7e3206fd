"""Records on disk: read, checked, written whole or not at all."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.base import Problem, RecordError, write_json
from harness.records.record import Record
from harness.records.schemas import violations
from harness.records.strict_json import parse_model, unreadable

LARGEST_BYTES = 2**26


def write_record(path: Path, record: Record) -> None:
    """Write a record atomically; one that breaks the schema raises RecordError."""
    document = record.model_dump(mode="json")
    problems = list(violations("record", document, path))
    if problems:
        raise _refusal(problems)
    write_json(path, document)


def read_record(path: Path) -> Record:
    """Read a record; RecordError names the file, the path in it and what is wrong."""
    record, problems, _ = parse_record(path)
    if record is None:
        raise _refusal(problems)
    return record


def parse_record(path: Path) -> tuple[Record | None, list[Problem], Any]:
    """Read a record strictly; return it, or None and all that is wrong with it.

    Last come its JSON values, where there is a record.
    """
    try:
        text = _text(path)
    except (OSError, UnicodeDecodeError) as error:
        return None, [unreadable(path, error)], None
    except RecordError as error:
        return None, [Problem(str(path), (), str(error))], None
    record, problems, values = parse_model(Record, text, path)
    version = [problem for problem in problems if problem.path == ("schema_version",)]
    return record, version or problems, values


def _text(path: Path) -> str:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise RecordError("is no regular file")
    if found.st_size > LARGEST_BYTES:
        raise RecordError("is larger than any record: 64 MiB")
    return path.read_text(encoding="utf-8")


def _refusal(problems: Sequence[Problem]) -> RecordError:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return RecordError(f"{problems[0]}{more}")
