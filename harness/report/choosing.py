"""What of a report is shown: some tables, some columns, and under which names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.base import UsageError, unknown_name
from harness.records import Verdicts
from harness.report.content import Cell, Column, Label, Report, Table
from harness.report.tables.rows import WORST_CASE

ALL = "all"
"""Stands for all tables."""
METHODS = "methods"
"""Stands for the paragraph."""


def choose(
    report: Report,
    tables: Sequence[str] = (),
    columns: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
) -> Report:
    """Return the report with some of its tables and columns, and with other names.

    `tables` are keys, in the order in which they are to stand; ``metrics`` stands for
    the tables of all models, ``methods`` for the paragraph about what was done, and
    ``all``, or nothing, for everything. `columns` are headings, or groups of them; a
    table has those of them that it knows, besides the columns that name its rows, and
    one that knows none stays as it is. `names` says how models, arms, attacks and
    metrics are called.

    Raises UsageError for a name that is not there, with those that are.
    """
    found = [*_tables(report.tables, tables)]
    _check(columns, found)
    made = replace(
        report,
        tables=[_narrowed(table, columns) for table in found],
        methods=report.methods if not tables or {ALL, METHODS} & {*tables} else "",
    )
    return _renamed(made, names) if names else made


# --- tables and columns -------------------------------------------------------------


def _tables(known: Sequence[Table], wanted: Sequence[str]) -> Iterator[Table]:
    if not wanted or ALL in wanted:
        yield from known
        return
    for name in dict.fromkeys(wanted):
        found = [x for x in known if name in (x.key, x.key.partition(".")[0])]
        if not found and name != METHODS:
            keys = [ALL, METHODS, *(x.key for x in known)]
            raise UsageError(unknown_name("table", name, keys))
        yield from found


def _check(wanted: Iterable[str], tables: Sequence[Table]) -> None:
    columns = [column for table in tables for column in table.columns[table.keys :]]
    for name in wanted:
        if not any(_is_called(column, name) for column in columns):
            known = {column.name for column in columns}
            raise UsageError(unknown_name("column", name, known))


def _narrowed(table: Table, wanted: Sequence[str]) -> Table:
    others = range(table.keys, len(table.columns))
    found = [i for name in wanted for i in others if _is_called(table.columns[i], name)]
    if not found:
        return table
    return table.only([*range(table.keys), *dict.fromkeys(found)])


def _is_called(column: Column[Any], name: str) -> bool:
    words = (column.name, column.title, column.group, f"{column.group} {column.title}")
    return name.casefold() in {word.casefold() for word in words if word}


# --- names --------------------------------------------------------------------------

Say = Callable[[str], str]
"""Returns a text in which other names stand."""


def _renamed(report: Report, names: Mapping[str, str]) -> Report:
    """Return a report in which other names stand; captions keep to their words."""
    say = _speaker(report, names)
    return replace(
        report,
        warnings=[*map(say, report.warnings)],
        methods=say(report.methods),
        tables=[_table(table, say) for table in report.tables],
        verdicts=report.verdicts and _verdicts(report.verdicts, say),
    )


def _speaker(report: Report, names: Mapping[str, str]) -> Say:
    estimates = _estimates(report)
    known = {label: names.get(label, label) for label in _labels(report)}
    for name in estimates:
        metric, _, estimate = name.partition(".")
        known[name] = names.get(name, f"{known.get(metric, metric)}.{estimate}")
    for name in names:
        if name not in known:
            kind = "model, arm, attack or metric"
            raise UsageError(unknown_name(kind, name, known))
    # All labels, the longest first: a part of one is none.
    longest = sorted(known, key=len, reverse=True)
    either = "|".join(map(re.escape, longest))
    whole = re.compile(rf"(?<![\w.-])(?:{either})(?![\w-]|\.\w)")
    return lambda text: whole.sub(lambda match: known[match[0]], text)


def _labels(report: Report) -> list[str]:
    """Return what models, arms, attacks and metrics are called."""
    if report.results is None:
        return []
    suite = report.results.suite
    sections = (suite.models, suite.arms, suite.attacks, suite.metrics)
    return [*(label for labels in sections for label in labels), WORST_CASE]


def _estimates(report: Report) -> list[str]:
    """Return what the rows of the tables of metrics are called."""
    tables = [x for x in report.tables if x.key.startswith("metrics.")]
    cells = [row[0] for table in tables for row in table.rows]
    return [cell.text for cell in cells if isinstance(cell, Label)]


def _table(table: Table, say: Say) -> Table:
    return replace(
        table,
        title=say(table.title),
        columns=[_column(column, say) for column in table.columns],
        rows=[[_cell(cell, say) for cell in row] for row in table.rows],
        notes=[*map(say, table.notes)],
    )


def _column(column: Column[Any], say: Say) -> Column[Any]:
    return replace(
        column,
        title=say(column.title),
        group=say(column.group),
        short=say(column.short),
    )


def _cell(cell: Cell, say: Say) -> Cell:
    if isinstance(cell, Label):
        return replace(cell, text=say(cell.text), short=say(cell.short))
    return cell


def _verdicts(verdicts: Verdicts, say: Say) -> Verdicts:
    return verdicts.model_copy(
        update={
            "arms": [
                found.model_copy(
                    update={
                        "model": say(found.model),
                        "arm": say(found.arm),
                        "reference": found.reference and say(found.reference),
                        "reasons": [*map(say, found.reasons)],
                    }
                )
                for found in verdicts.arms
            ],
            "claims": [
                found.model_copy(update={"reasons": [*map(say, found.reasons)]})
                for found in verdicts.claims
            ],
        }
    )
