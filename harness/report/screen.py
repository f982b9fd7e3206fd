"""Reports for the end of a run: one screen of a terminal, and where the rest is."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator
from itertools import chain

from harness.base import visible
from harness.records import ArmVerdict, Verdicts
from harness.report.content import Report, Table
from harness.report.formats.text import WIDTH, fits, groups, printed
from harness.report.tables.claims import claim_line
from harness.report.tables.rows import WORST_CASE
from harness.report.tables.verdicts import brief

NARROWEST = 80
"""In characters: a table takes as many."""
MAIN = "main"
"""The key of the table that is shown."""
WARNINGS, NOTES = 4, 3
"""How many are shown at most; each takes two lines at most."""
CLAIMS = 12
"""How many are shown at most, a line each."""
FEW_ROWS = 8
"""Up to how many rows the table goes on in a second part."""
INDENT = " " * 4
FIRST = ("perplexity", "change")
LAST = ("corpus loss", "params")
"""Columns of the table by how soon they are dropped where not all fit."""
LEGEND = (
    "success: exp(dL) > {:g}, the share of documents, under every seed; dL: rise of "
    "the loss, nats/token; [a, b]: 95 % interval; ±: sd over seeds"
)


def render_screen(report: Report, width: int | None = None) -> str:
    """Return the verdicts, the main table, and what to look at next.

    Every verdict has its reason in a line; a table that is too wide loses the columns
    that matter least, which are named. Of attacks, the worst case comes first. No line
    is wider than a terminal of `width` characters, from 80 to the 100 of other texts,
    but for commands to copy.
    """
    width = min(WIDTH, max(NARROWEST, width or WIDTH))
    parts = [
        [report.title, *_wrapped(_counted(report), width, 2)],
        list(_warnings(report, width)),
        list(_verdicts(report.verdicts, width)) if report.verdicts else [],
        list(_claims(report.verdicts, width)) if report.verdicts else [],
        *([*_main(x, report, width)] for x in report.tables if x.key == MAIN),
        list(_next(report)),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _counted(report: Report) -> str:
    facts = dict(report.facts)
    names = ("suite", "units", "seeds")
    return "; ".join(f"{name} {facts[name]}" for name in names if name in facts)


def _warnings(report: Report, width: int) -> Iterator[str]:
    for warning in report.warnings[:WARNINGS]:
        yield from _wrapped(f"! {warning}", width, 2)
    left = len(report.warnings) - WARNINGS
    if left > 0:
        yield f"! and {left} more: see --tables all"


def _wrapped(text: str, width: int, most: int, begin: str = "") -> list[str]:
    """Return a text on so many lines at most; dots say that there is more.

    Narrow ones may be one more.
    """
    return textwrap.wrap(
        visible(text, line=True),
        width,
        initial_indent=begin,
        subsequent_indent=begin or "  ",
        max_lines=most + (width < WIDTH),
        placeholder=" ...",
    )


# --- verdicts -----------------------------------------------------------------------


def _verdicts(verdicts: Verdicts, width: int) -> Iterator[str]:
    """Yield a line for each verdict, and one for its reason."""
    several = len({found.model for found in verdicts.arms}) > 1
    names = [_arm(found, several=several) for found in verdicts.arms]
    wide = min(max(map(len, names), default=0), width // 2)
    word = max((len(found.verdict) for found in verdicts.arms), default=0)
    for name, found in zip(names, verdicts.arms, strict=True):
        difference, reason = brief(found)
        line = f"{name:{wide}}  {found.verdict:{word}}  {difference}"
        yield from _wrapped(line.rstrip(), width, 1)
        yield from _wrapped(reason, width, 1, INDENT)


def _arm(found: ArmVerdict, *, several: bool) -> str:
    name = f"{found.model} ({found.arm})" if several else found.arm
    return f"{name} against {found.reference}" if found.reference else name


def _claims(verdicts: Verdicts, width: int) -> Iterator[str]:
    """Yield a line for each of the suite's claims."""
    lines = [claim_line(found) for found in verdicts.claims]
    name, word = (max((len(x[i]) for x in lines), default=0) for i in (0, 1))
    for line in lines[:CLAIMS]:
        text = f"{line[0]:{name}}  {line[1]:{word}}  {line[2]}"
        yield from _wrapped(text, width, 1)
    if lines[CLAIMS:]:
        yield f"and {len(lines) - CLAIMS} claims more; see --tables claims"


# --- the main table -----------------------------------------------------------------


def _main(table: Table, report: Report, width: int) -> Iterator[str]:
    left = list(groups(table))
    for _ in range(1 if len(table.rows) > FEW_ROWS else 2):
        found = _fitting(table, left, width)
        left = [group for group in left if group not in found]
        if found:
            places = sorted(chain.from_iterable(found))
            yield printed(table.only([*range(table.keys), *places]))
    for note in table.notes[:NOTES]:
        yield from _wrapped(note, width, 2)
    if report.results is not None:
        yield from _wrapped(LEGEND.format(1 + report.results.threshold), width, 2)
    if left:
        columns = (table.columns[group[0]] for group in left)
        names = ", ".join(column.group or column.title for column in columns)
        yield from _wrapped(f"Not shown: {names}; see --tables {MAIN}", width, 2)


def _fitting(table: Table, from_which: list[list[int]], width: int) -> list[list[int]]:
    """Return the groups of columns that fit, those that matter most chosen first."""

    def rank(group: list[int]) -> int:
        column = table.columns[group[0]]
        order = [*FIRST, WORST_CASE, "", *LAST]
        name = column.group or column.title
        return order.index(name if name in order else "")

    found: list[list[int]] = []
    for group in sorted(from_which, key=rank):
        chosen = [*range(table.keys), *chain.from_iterable(found), *group]
        if fits(table, chosen, width):
            found.append(group)
    return found


# --- what comes next ----------------------------------------------------------------


def _next(report: Report) -> Iterator[str]:
    """Yield a line for each command that shows more of the run."""
    if report.results is None:
        return
    run = shlex.quote(str(report.results.survey.folder.root))
    commands = {
        f"harness show {run} --worst 10": "what attacks changed, and what it did",
        f"harness report {run} --format html": "one page: figures, tables, examples",
        f"harness report {run} --tables all": f"all {len(report.tables)} tables",
    }
    wide = max(map(len, commands))
    for command, shows in commands.items():
        yield f"{command:{wide}}  {shows}"
