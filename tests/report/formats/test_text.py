"""Tables in a terminal."""

import pytest

from harness.report.content import Column, Label, Missing, Number, Report, Table
from harness.report.formats.text import WIDTH, narrower, render_text


def heading(title, group=""):
    """Return a column of a table whose cells are given."""
    return Column(title, Label, group)


def table(columns, rows, keys=1):
    return Table("key", "A title", columns, rows, "A caption.", keys=keys)


def printed(table):
    """Return the lines of a report's only table, title and caption left out."""
    text = render_text(Report("r", [("a", "b")], [], [table]))
    return text.split("=\n\n")[1].split("\n\nA caption")[0].splitlines()


def number(value):
    return Number(value, "nats")


def test_numbers_align_under_the_name_of_their_group():
    columns = [heading("arm"), heading("clean", "loss"), heading("attacked", "loss")]
    rows = [
        [Label("baseline"), number(2.4), number(0.55)],
        [Label("gauge"), number(12.4), Missing("failed")],
    ]
    rule = "--------  ------  ---------"
    assert printed(table(columns, rows)) == [
        rule,
        "arm         loss       loss",
        "           clean   attacked",
        rule,
        "baseline   2.400      0.550",
        "gauge     12.400  -- failed",
        rule,
    ]


def test_a_table_without_rows_has_its_headings():
    lines = printed(table([heading("a"), heading("b")], []))
    assert lines == ["-  -", "a  b", "-  -", "-  -"]


@pytest.mark.parametrize("long", [3, 30, 300])
def test_a_table_that_is_too_wide_becomes_narrower_ones(long):
    """The printer does not become wider, whatever the names are."""
    name = "very " * (long // 5) + "x" * long
    group = [heading(f"{place} {name}", "group") for place in "abc"]
    columns = [heading("arm"), heading("attack"), *group, *map(heading, "defgh")]
    cells = [Number(1234567.0, "nats", interval=(-1e5, 1e5))] * 8
    wide = table(columns, [[Label(name), Label(name), *cells]], keys=2)
    lines = printed(wide)
    assert max(map(len, lines)) <= WIDTH
    assert sum(line.count("1.23e6") for line in lines) == 8
    parts = list(narrower(wide))
    assert len(parts) > 1
    assert all(part.columns[:2] == columns[:2] for part in parts)
    assert [x for part in parts for x in part.columns[2:]] == columns[2:]


def test_columns_of_a_group_stay_together():
    columns = [heading("arm"), *(heading("x", f"group {i // 2}") for i in range(12))]
    row = [Label("baseline"), *[Number(0.5, "nats", interval=(0.41, 0.59))] * 12]
    parts = [[c.group for c in x.columns[1:]] for x in narrower(table(columns, [row]))]
    assert [len(groups) for groups in parts] == [4, 4, 4]
