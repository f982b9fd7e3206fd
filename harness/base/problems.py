"""What is wrong, and where: printed as a line, as JSON or beside the line on GitHub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from harness.base.showing import visible


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: in a suite, a record, a plugin or on this machine."""

    file: str
    """The file as the user named it, or a flag, as ``--set seeds``; may be empty."""
    path: tuple[str | int, ...]
    """The keys that lead to it, as ``("seeds", 0)``; empty for the whole file."""
    message: str
    """What is wrong, what was expected, and the nearest known name: a sentence."""
    line: int | None = None
    """The line of the file, counted from 1, where there is one."""
    exit_code: int = 1
    """What a command exits with that finds it: 1 for a record, 2 for a suite."""
    severity: Literal["error", "warning", "notice"] = "error"
    """As GitHub grades annotations; only errors count for the exit code."""

    @property
    def key(self) -> str:
        """The path in one word, as ``seeds.0``."""
        return ".".join(map(str, self.path))

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        parts = [part for part in (where, self.key, self.message) if part]
        return visible(": ".join(parts), line=True)

    def as_json(self) -> dict[str, Any]:
        """Return JSON values: every field by its name, and the path in one word."""
        return {**vars(self), "path": self.key}

    def as_annotation(self) -> str:
        """Return a workflow command: GitHub shows it beside the line that it names."""
        message = f"{self.key}: {self.message}" if self.path else self.message
        where = f"file={_property(self.file)},line={self.line or 1}"
        return f"::{self.severity} {where}::{_data(message)}"


def _data(text: str) -> str:
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return visible(escaped, line=True)


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
