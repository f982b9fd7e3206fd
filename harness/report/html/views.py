"""What the page's template shows of verdicts, tables, figures and records."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

from markupsafe import Markup

from harness.base import visible
from harness.records import (
    Answer as Answers,
    ClaimAnswer,
    Difference,
    Judged,
    Record,
    Verdicts,
    Word,
)
from harness.report.content import Cell, Label, Missing, Number, Report, Table
from harness.report.figures.drawing import panel_svg, shared_limits
from harness.report.figures.parts import Figure
from harness.report.formats.numbers import Parts, number_parts, number_text
from harness.report.html.sparks import (
    Scale,
    forest,
    forest_scale,
    legend_key,
    spark,
    spark_scale,
)
from harness.report.html.svg import inlined
from harness.report.tables.claims import answer_text, found_cell
from harness.report.tables.methods import machine
from harness.report.tables.verdicts import ALARMING, paragraphs

LONG = 40
"""Letters of a cell that may take several lines."""
_PARTS = re.compile(r"(?<=[._/])(?=[^\W\d])")
"""Where a name may be broken."""

_TONES: dict[Word, str] = {
    "harder to attack": "good",
    "easier to attack": "bad",
    "equivalent": "same",
    "reference": "plain",
}
_CLAIM_TONES: dict[Answers, str] = {
    "supported": "good",
    "refuted": "bad",
    "undecided": "open",
    "refused": "alarming",
}
_STATUS = {"pass": "pass", "warn": "warning", "fail": "fails", "not_applicable": "--"}
_FIRST = ("fail", "warn", "pass", "not_applicable")


# --- warnings and verdicts ----------------------------------------------------------


class Warned(NamedTuple):
    """A warning: the word in capitals that it begins with, and the rest."""

    word: str
    text: str


def warned(warning: str) -> Warned:
    """Split a warning into its word and its text."""
    word, colon, text = warning.partition(":")
    return Warned(word + colon, text) if word.isupper() else Warned("", warning)


class Answer(NamedTuple):
    """The answer to a question about an arm, or about an attack on it."""

    question: str
    status: str
    word: str
    value: str
    n: str
    why: str


@dataclass(frozen=True)
class Card:
    """The verdict on an arm."""

    name: str
    against: str | None
    word: str
    tone: str
    difference: Parts | None
    drawn: Markup
    design: str
    reasons: Sequence[str]
    answers: Sequence[Answer]


def cards(verdicts: Verdicts) -> Iterator[Card]:
    """Yield the verdict on each arm, all differences drawn on one scale."""
    scale = forest_scale(verdicts.arms)
    several = len({found.model for found in verdicts.arms}) > 1
    for found in verdicts.arms:
        _, *said = (line.strip() for line in paragraphs(found))
        known = found.difference
        yield Card(
            name=f"{found.model} ({found.arm})" if several else found.arm,
            against=found.reference,
            word=found.verdict,
            tone=_tone(found.verdict),
            difference=None if known is None else _parts(_difference(known)),
            drawn=Markup(forest(found, scale) if known else ""),  # noqa: S704
            design=" ".join(line for line in said if not line.startswith("- ")),
            reasons=[line[2:] for line in said if line.startswith("- ")],
            answers=_answers(found.diagnostics),
        )


def _difference(known: Difference) -> Number:
    return Number(known.value, "nats", signed=True, interval=known.interval)


def _tone(word: Word) -> str:
    return "alarming" if word in ALARMING else _TONES.get(word, "open")


def _answers(found: Sequence[Judged]) -> list[Answer]:
    return [
        Answer(
            question=_question(answer),
            status=answer.status.replace("_", "-"),
            word=_STATUS[answer.status],
            value=_value(answer),
            n=f"{answer.n:,}",
            why=answer.reason or "",
        )
        for answer in sorted(found, key=lambda x: _FIRST.index(x.status))
    ]


def _question(answer: Judged) -> str:
    asked = " against ".join(filter(None, (answer.attack, answer.against)))
    name = answer.id.replace("_", " ")
    return f"{name} ({asked})" if asked else name


def _value(answer: Judged) -> str:
    if answer.value is None:
        return "--"
    interval = answer.interval
    between = f" [{interval[0]:.3g}, {interval[1]:.3g}]" if interval else ""
    return f"{_signed(f'{answer.value:.3g}{between}')} {answer.unit}"


# --- claims -------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """The answer to a claim of the suite."""

    name: str
    words: str
    answer: str
    tone: str
    found: str
    reasons: Sequence[str]


def claims(verdicts: Verdicts) -> Iterator[Claim]:
    """Yield the answer to each of the suite's claims."""
    several = len({found.model for found in verdicts.claims}) > 1
    return (_claim(found, several=several) for found in verdicts.claims)


def _claim(found: ClaimAnswer, *, several: bool) -> Claim:
    shown = found_cell(found)
    return Claim(
        name=f"{found.group}.{found.label}",
        words=f"{found.words} ({found.model})" if several else found.words,
        answer=answer_text(found),
        tone=_CLAIM_TONES[found.answer],
        found=number_text(shown) if isinstance(shown, Number) else "",
        reasons=found.reasons,
    )


# --- tables -------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A cell as it is shown."""

    kind: str
    value: str
    spread: str = ""
    spark: str = ""
    note: str = ""
    sort: str = ""
    alarm: bool = False
    brief: bool = False
    right: bool = False
    long: bool = False
    """Whether it may take several lines."""


class Heading(NamedTuple):
    """The heading of a column."""

    title: str
    group: str
    right: bool


class Group(NamedTuple):
    """The heading of neighbouring columns."""

    name: str
    width: int


@dataclass(frozen=True)
class TableView:
    """A table as it is shown."""

    key: str
    title: str
    groups: Sequence[Group]
    columns: Sequence[Heading]
    rows: Sequence[Sequence[Shown]]
    notes: Sequence[str]
    caption: str


def table_view(table: Table) -> TableView:
    """Return what the page shows of a table."""
    right = [word == "right" for word in table.alignment]
    scales = [_scale(table, index) for index in range(len(table.columns))]
    rows = [
        [_shown(*each) for each in zip(row, scales, right, strict=True)]
        for row in table.printed_rows
    ]
    found = groupby(table.columns, key=lambda column: column.group)
    groups = [Group(name, len(list(columns))) for name, columns in found]
    return TableView(
        key=table.key,
        title=table.title,
        groups=groups if any(group.name for group in groups) else [],
        columns=[
            Heading(column.short or column.title, column.group, aligned)
            for column, aligned in zip(table.columns, right, strict=True)
        ],
        rows=rows,
        notes=table.notes if table.key not in ("verdicts", "claims") else (),
        caption=table.caption,
    )


def _scale(table: Table, index: int) -> Scale | None:
    cells = (row[index] for row in table.rows)
    numbers = [x for x in cells if isinstance(x, Number) and x.interval is not None]
    return spark_scale(numbers) if numbers else None


def _shown(cell: Cell, scale: Scale | None, right: bool) -> Shown:
    if isinstance(cell, Label):
        text = cell.short or cell.text
        long = len(text) > LONG
        return Shown("label", _breakable(text), alarm=cell.alarm, long=long)
    if isinstance(cell, Missing):
        return Shown("missing", cell.reason, brief=cell.brief, right=right)
    parts = _parts(cell)
    drawn = spark(cell, scale) if scale is not None and cell.interval else ""
    return Shown(
        "number",
        f"{parts.value} {parts.unit}".strip() + cell.mark,
        parts.spread,
        Markup(drawn),  # noqa: S704
        parts.seeds,
        sort=repr(cell.value),
    )


def _breakable(text: str) -> Markup:
    """Return a text whose names may be broken where their parts begin.

    What cannot be seen is spelt out here: markup is not looked at again.
    """
    return Markup("<wbr>").join(_PARTS.split(visible(text)))


def _parts(number: Number) -> Parts:
    return Parts(*map(_signed, number_parts(number)))


def _signed(numbers: str) -> str:
    """Return numbers with minus signs as they are printed."""
    return numbers.replace("-", "\u2212")


# --- figures ------------------------------------------------------------------------


class Drawn(NamedTuple):
    """A panel, or the key of a legend."""

    title: str
    drawn: Markup

    @property
    def name(self) -> str:
        """What a legend calls it."""
        return self.title


@dataclass(frozen=True)
class FigureView:
    """A figure as it is shown."""

    key: str
    title: str
    caption: str
    legend: Sequence[Drawn]
    panels: Sequence[Drawn]


def figure_view(figure: Figure) -> FigureView:
    """Return what the page shows of a figure; titles of panels stand above them."""
    limits = shared_limits(figure)
    panels = [
        Drawn(
            panel.title if len(figure.panels) > 1 else "",
            Markup(  # noqa: S704
                inlined(
                    panel_svg(replace(panel, title=""), limits),
                    f"{figure.key}-{number}",
                    _described(figure, panel.title),
                )
            ),
        )
        for number, panel in enumerate(figure.panels)
    ]
    named = figure.series if figure.legend and len(figure.series) > 1 else []
    legend = [Drawn(x.name, Markup(legend_key(x))) for x in named]  # noqa: S704
    return FigureView(figure.key, figure.title, figure.caption, legend, panels)


def _described(figure: Figure, title: str) -> str:
    return f"{figure.title}: {title}. The data of the figure has every point."


# --- provenance ---------------------------------------------------------------------


def provenance(report: Report) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield what pins the numbers down, with every value that records have of it."""
    for name, value in report.provenance:
        yield name, [value]
    records = report.results.records if report.results is not None else []
    for name, of in _RECORDED.items():
        found = Counter(value for record in records for value in of(record))
        if found:
            yield name, [_counted(*each, len(records)) for each in found.items()]


def _counted(value: str, n: int, records: int) -> str:
    return value if n == records else f"{value} ({n} of {records} records)"


def _plugins(record: Record) -> list[str]:
    used = record.provenance.plugins
    return [f"{x.kind} {x.name} {x.version}, source {x.sha256[:12]}" for x in used]


_RECORDED: dict[str, Any] = {
    "versions": lambda x: [f"{k} {v}" for k, v in x.provenance.versions.items()],
    "plugins": _plugins,
    "hardware": lambda x: [machine(x)],
    "search dtype": lambda x: [x.provenance.dtype],
    "model weights": lambda x: [f"{x.model.label} {x.model.fingerprint[:24]}"],
}
