"""What validation finds, and how it is printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.base import Problem
from harness.records import Fault
from harness.suite import Place, parse


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and where."""

    file: str
    """The file, as it was named on the command line."""
    path: str
    """The key in it, as ``results.attack.success``; empty for the whole file."""
    message: str
    """What is wrong, in a sentence."""
    line: int | None = None
    """The line, counted from 1, where there is one."""
    exit_code: int = 1
    """1 for a record; 2 for a suite."""

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (where, self.path, self.message) if part)


@dataclass(frozen=True)
class Validation:
    """What was looked at, and what was found."""

    checked: tuple[str, ...]
    """The files and folders."""
    findings: tuple[Finding, ...]
    """What is wrong with them."""

    @property
    def exit_code(self) -> int:
        """0 where nothing is wrong, 1 for records, 2 for suites."""
        return max((finding.exit_code for finding in self.findings), default=0)


def at_fault(file: Path, fault: Fault) -> Finding:
    """Turn a record's fault into a finding, with the line in the file."""
    path = ".".join(map(str, fault.path))
    return Finding(str(file), path, fault.message, line_of(file, fault.path))


def line_of(file: Path, path: Sequence[str | int]) -> int | None:
    """Return the line of a JSON file that a path of keys leads to."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    # JSON is YAML, and the reader of YAML remembers lines.
    node, _ = parse(text, Place(str(file), 1, file.parent), []).find(path)
    return node.place.line


def of_suite(problem: Problem) -> Finding:
    """Turn a problem of a suite into a finding."""
    return Finding(problem.file, problem.key, problem.message, problem.line, 2)


def render(validation: Validation, style: str) -> str:
    """Return what to print, in the style ``text``, ``json`` or ``github``."""
    return RENDERERS[style](validation)


def _text(validation: Validation) -> str:
    lines = [str(finding) for finding in validation.findings]
    return "\n".join([*lines, _summary(validation)])


def _json(validation: Validation) -> str:
    document: dict[str, Any] = {
        "valid": not validation.findings,
        "checked": list(validation.checked),
        "findings": [asdict(finding) for finding in validation.findings],
    }
    return json.dumps(document, indent=1)


def _github(validation: Validation) -> str:
    """Return workflow commands, which GitHub shows beside the lines they name."""
    lines = [_annotation(finding) for finding in validation.findings]
    return "\n".join([*lines, _summary(validation)])


RENDERERS: dict[str, Callable[[Validation], str]] = {
    "text": _text,
    "json": _json,
    "github": _github,
}
"""The styles of `render`."""


def _annotation(finding: Finding) -> str:
    message = f"{finding.path}: {finding.message}" if finding.path else finding.message
    file, line = _property(finding.file), finding.line or 1
    return f"::error file={file},line={line}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _summary(validation: Validation) -> str:
    checked = ", ".join(validation.checked) or "nothing"
    if not validation.findings:
        return f"valid: {checked}"
    count = len(validation.findings)
    return f"{count} finding{'s' if count > 1 else ''} in {checked}"
