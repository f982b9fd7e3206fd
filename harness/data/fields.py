"""Rows of files as documents: which of a row's fields hold what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.base import UsageError
from harness.data.document import Document

_BETWEEN_CHOICES = ";"


@dataclass(frozen=True)
class Fields:
    """The names of the fields of a corpus's rows, as a suite states them.

    Either `text` alone, or `prompt` with what follows it: a `reference`; `choices` with
    the `gold` one's index; `choices` that are wrong beside the `reference` that is
    right; or a list of prompts, the `gold` one right, before one `reference`.
    """

    text: str = "text"
    prompt: str | None = None
    reference: str | None = None
    choices: str | None = None
    gold: str | None = None
    prefix: str = ""
    """Text that is put before every prompt."""
    cluster: str | None = None
    """The field that names what documents have in common."""

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that a row must have."""
        pair = (self.prompt, self.reference, self.choices, self.gold)
        stated = ((self.text,) if self.prompt is None else pair) + (self.cluster,)
        return tuple(name for name in stated if name is not None)

    def document(self, number: str, row: Mapping[str, Any], where: object) -> Document:
        """Read a row; a fault is a UsageError that says `where`.

        A blank document is one whose text, or whose reference, is blank.
        """
        cells = _Cells(row, where)
        document = self._unclustered(number, cells)
        if self.cluster is None:
            return document
        return replace(document, cluster=cells.name(self.cluster))

    def _unclustered(self, number: str, cells: _Cells) -> Document:
        if self.prompt is None:
            return Document(number, cells.text(self.text))
        if self.choices is None:
            return self._pair(number, cells)
        prompt = self._prefixed(cells.text(self.prompt))
        choices = cells.texts(self.choices, split=True)  # csv has no lists
        if self.reference is not None:
            choices, gold = (cells.text(self.reference), *choices), 0
        else:
            gold = cells.index(str(self.gold), len(choices))
        if len(choices) < 2:
            raise cells.fault(self.choices, "one choice, and two are needed")
        return Document(
            number, prompt, choices[gold], choices, gold, prefix=self.prefix
        )

    def _prefixed(self, text: str) -> str:
        return self.prefix + text if text.strip() else ""

    def _pair(self, number: str, cells: _Cells) -> Document:
        prompt, reference = str(self.prompt), cells.text(str(self.reference))
        if self.gold is None:
            text = self._prefixed(cells.text(prompt))
            return Document(number, text, reference, prefix=self.prefix)
        prompts = tuple(map(self._prefixed, cells.texts(prompt)))
        gold = cells.index(self.gold, len(prompts))
        choices = (reference,) * len(prompts)
        return Document(
            number, prompts[gold], reference, choices, gold, prompts, self.prefix
        )


@dataclass(frozen=True)
class _Cells:
    """The values of a row, each as what it should be."""

    row: Mapping[str, Any]
    where: object

    def text(self, field: str) -> str:
        value = self.row[field]
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.fault(field, f"{type(value).__name__}, not text")
        return value

    def name(self, field: str) -> str:
        value = self.row[field]
        named = isinstance(value, str | int) and not isinstance(value, bool)
        if not named or not str(value).strip():
            held = "nothing" if value in (None, "") else f"{value!r}, no name"
            raise self.fault(field, f"{held}: every document needs its cluster")
        return str(value)

    def texts(self, field: str, *, split: bool = False) -> tuple[str, ...]:
        value = self.row[field]
        if split and isinstance(value, str):
            parts = (part.strip() for part in value.split(_BETWEEN_CHOICES))
            return tuple(part for part in parts if part)
        texts = isinstance(value, list) and all(isinstance(x, str) for x in value)
        if not texts:
            raise self.fault(field, f"{type(value).__name__}, not a list of texts")
        return tuple(value)

    def index(self, field: str, count: int) -> int:
        value = self.row[field]
        if isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fault(field, f"{value!r}, not the number of a choice")
        if not 0 <= value < count:
            what = f"{value}, and the choices are numbered 0 to {count - 1}"
            raise self.fault(field, what)
        return value

    def fault(self, field: str, what: str) -> UsageError:
        return UsageError(f"{self.where}: field {field!r} holds {what}")
