"""What a report says, before any of it is formatted; numbers here are not rounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from harness.base import visible
from harness.records import Estimate, Verdicts, across_seeds
from harness.verdicts import Comparison, Results

LIMITED = "NOT FOR REAL NUMBERS"
"""What a warning begins with that stands below each table of a paper, too."""
Kind = Literal[
    "number",
    "count",
    "parameters",
    "perplexity",
    "nats",
    "fraction",
    "share",
    "flops",
    "weight",
    "p",
    "seconds",
    "size",
]
"""What a number is; it decides how it is rounded and what stands behind it."""


Names = tuple[tuple[str, str], ...]
"""What something is about, by field: as ``(("model", "small"), ("arm", "baseline"))``.
Fields are model, arm, against (the arm that it is held against), made_on (the arm that
prompts come from), attack, control, metric and estimate."""


@dataclass(frozen=True)
class Label:
    """A cell of words."""

    text: str
    alarm: bool = False
    """True for what must not be overlooked."""
    short: str = ""
    """What a terminal shows instead, where it is enough."""
    names: Names = ()
    """What the row is about, where this cell says so."""


@dataclass(frozen=True)
class Missing:
    """A number that is not there, and why: missing, failed, invalid, ..."""

    reason: str
    brief: bool = False
    """True where dashes will do, as where the cell before gives the same reason."""


@dataclass(frozen=True)
class Number:
    """A cell with a number: either its spread over seeds or an interval, never both."""

    value: float
    kind: Kind
    signed: bool = False
    std: float | None = None
    """Sample standard deviation (ddof 1) over seeds."""
    interval: tuple[float, float] | None = None
    """The 95 % interval of `value`, from a record or a bootstrap."""
    n: int | None = None
    """How many seeds `value` rests on."""
    planned: int | None = None
    """How many seeds the arm was to get; shown where `n` is smaller."""
    mark: str = ""
    """Refers to a note below the table."""


Cell = Label | Missing | Number
RowT = TypeVar("RowT")
DataT = TypeVar("DataT")


@dataclass(frozen=True)
class Column(Generic[RowT]):
    """A column: its heading, and what fills its cell in a row."""

    title: str
    fill: Callable[[RowT], Cell]
    group: str = ""
    """The group of neighbouring columns that it belongs to."""
    short: str = ""
    """The heading where labels are shown short."""
    names: Names = ()
    """What the column is about, where that is an attack or an arm."""

    @property
    def name(self) -> str:
        """The heading in one line, its group first."""
        return f"{self.group}: {self.title}" if self.group else self.title


def about(
    data: Callable[[RowT], DataT | str], columns: Sequence[Column[DataT]]
) -> list[Column[RowT]]:
    """Return the columns that show `data` of a row.

    Where a row has no such data, `data` returns the reason, and all cells are missing.
    """

    def filled(column: Column[DataT]) -> Callable[[RowT], Cell]:
        def fill(row: RowT) -> Cell:
            found = data(row)
            return Missing(found) if isinstance(found, str) else column.fill(found)

        return fill

    return [
        Column(column.title, filled(column), column.group, column.short, column.names)
        for column in columns
    ]


@dataclass(frozen=True)
class Table:
    """A table whose first columns name the row."""

    key: str
    """What programs call it."""
    title: str
    columns: Sequence[Column[Any]]
    rows: Sequence[Sequence[Cell]]
    caption: str
    """How to read it."""
    notes: Sequence[str] = ()
    """What the marks mean."""
    keys: int = 1
    """How many columns name the row."""
    summary: str = ""
    """What it shows, in a sentence or two: its caption in a paper, after the title."""

    def only(self, chosen: Sequence[int]) -> Table:
        """Return the table of these columns, by their places, in this order."""
        return replace(
            self,
            columns=[self.columns[index] for index in chosen],
            rows=[[row[index] for index in chosen] for row in self.rows],
        )

    @property
    def alignment(self) -> list[str]:
        """For each column ``right`` if it holds numbers, else ``left``."""
        columns = range(len(self.columns))
        numeric = [
            any(isinstance(row[i], Number) for row in self.rows) for i in columns
        ]
        return ["right" if found else "left" for found in numeric]

    @property
    def printed_rows(self) -> list[list[Cell]]:
        """The rows, with dashes in place of a reason that the cell before gives."""
        return [list(_said_once(row)) for row in self.rows]


def filled(
    key: str,
    title: str,
    columns: Sequence[Column[RowT]],
    rows: Iterable[RowT],
    *,
    caption: str,
    summary: str = "",
    notes: Sequence[str] = (),
    keys: int = 1,
) -> Table:
    """Return the table in which each column has filled its cell of each row."""
    cells = [[column.fill(row) for column in columns] for row in rows]
    return Table(key, title, columns, cells, caption, notes, keys, summary)


class Point(NamedTuple):
    """A point of a curve of success over thresholds, for a plot."""

    model: str
    arm: str
    attack: str
    threshold: float
    """Success is exp(dL) > 1 + threshold."""
    succeeded: int
    """Documents on which the attack succeeds under every seed."""
    documents: int
    low: float
    """The 95 % interval of their share, of Clopper and Pearson."""
    high: float


@dataclass(frozen=True)
class Report:
    """Facts about the run, warnings, and tables."""

    title: str
    facts: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    tables: Sequence[Table]
    provenance: Sequence[tuple[str, str]] = field(default_factory=tuple)
    """What pins down the numbers: hash of the suite, commit, newest record."""
    methods: str = ""
    """What was done, in a paragraph for a paper; empty where nothing was."""
    verdicts: Verdicts | None = None
    """The verdict of each arm; None where nothing was judged."""
    curves: Sequence[Point] = ()
    """How often attacks succeed, over thresholds."""
    results: Results | None = None
    """What all of it was made from, for formats that show single examples."""


def from_estimate(estimate: Estimate, kind: Kind, *, signed: bool = False) -> Cell:
    """Return the cell of an estimate, with its interval."""
    if estimate.value is None:
        return Missing(estimate.reason or "null")
    return Number(estimate.value, kind, signed, interval=estimate.interval)


def from_comparison(found: Comparison | str, kind: Kind) -> Cell:
    """Return the cell of a number about two arms, with its interval; or why not."""
    if isinstance(found, str):
        return Missing(found)
    return Number(found.value, kind, signed=True, interval=found.interval())


def from_seeds(values: Sequence[float], kind: Kind) -> Cell:
    """Return the cell of a mean over seeds, with the sample standard deviation."""
    spread = across_seeds(values)
    if spread.mean is None:
        return Missing("missing")
    return Number(spread.mean, kind, std=spread.std, n=spread.n)


def of_planned(cell: Cell, planned: int) -> Cell:
    """Return the cell of a mean over seeds with how many of them were planned."""
    if isinstance(cell, Number) and cell.n is not None:
        return replace(cell, planned=planned)
    return cell


def marked(cell: Cell, mark: str) -> Cell:
    """Return the cell with a mark behind its number."""
    return replace(cell, mark=cell.mark + mark) if isinstance(cell, Number) else cell


def shown(report: Report) -> Report:
    """Return the report with nothing in its words that a reader does not see.

    Each text is one line: no name can begin a heading, or a table, of its own.
    """
    found: Report = _visible(replace(report, verdicts=None, curves=()))
    return found


def _visible(value: Any) -> Any:
    """Spell out what is hidden in the texts of a report, or of a part of one."""
    if isinstance(value, str):
        return visible(value.replace("\n", " "), line=True)
    if isinstance(value, list | tuple):
        return [_visible(part) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        parts = {x.name: _visible(getattr(value, x.name)) for x in fields(value)}
        return replace(value, **parts)
    return value


def _said_once(row: Sequence[Cell]) -> Iterator[Cell]:
    said = None
    for cell in row:
        if isinstance(cell, Missing):
            yield replace(cell, brief=cell.brief or cell.reason == said)
            said = cell.reason
        else:
            yield cell
            said = None
