"""Some tables, some columns, other names: in every format, and nothing by accident."""

from dataclasses import replace

import pytest

from harness import report
from harness.base import UsageError
from harness.report.content import Label
from harness.running.surveying import survey


@pytest.fixture
def made(make_run):
    """Return a function that builds the report of a run, from what `make_run` gets."""
    return lambda **told: report.build(survey(make_run(**{"seeds": [1], **told})))


def headings(table):
    return [column.name for column in table.columns]


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        (["main"], ["main"]),
        (["costs", "main", "costs"], ["costs", "main"]),
        (["metrics"], ["metrics.Pythia_1.4B"]),
        (["metrics.Pythia_1.4B"], ["metrics.Pythia_1.4B"]),
    ],
)
def test_tables_stand_in_the_order_in_which_they_are_named(made, wanted, keys):
    assert [x.key for x in report.choose(made(), wanted).tables] == keys


@pytest.mark.parametrize("wanted", [[], ["all"], ["main", "all"]])
def test_all_tables_are_there_unless_some_are_named(made, wanted):
    whole = made()
    assert report.choose(whole, wanted).tables == list(whole.tables)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["perplexity"], ["perplexity"]),
        (["hotflip"], ["hotflip: success", "hotflip: dL"]),
        (["DL", "change"], ["hotflip: dL", "change"]),
        (["hotflip dL"], ["hotflip: dL"]),
        (["hotflip: dL"], ["hotflip: dL"]),
    ],
)
def test_columns_are_named_by_heading_or_group(made, wanted, found):
    report_of_all = made()
    (table,) = report.choose(report_of_all, ["main"], wanted).tables
    assert headings(table) == ["model (arm)", *found]
    assert {len(row) for row in table.rows} == {1 + len(found)}
    whole = next(x for x in report_of_all.tables if x.key == "main")
    at = headings(whole).index(found[0])
    assert [row[1] for row in table.rows] == [row[at] for row in whole.rows]


def test_a_table_without_any_of_the_columns_stays_whole(made):
    whole = made()
    main, costs = report.choose(whole, ["main", "costs"], ["perplexity"]).tables
    assert len(main.columns) == 2
    assert costs == next(x for x in whole.tables if x.key == "costs")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"tables": ["mian"]},
            r"unknown table 'mian'; did you mean 'main'\? \(known: al",
        ),
        (
            {"tables": ["main"], "columns": ["perplexty"]},
            r"unknown column 'perplexty'; did you mean 'perplexity'\? \(known: ch",
        ),
        ({"tables": ["main"], "columns": ["FLOP"]}, "unknown column 'FLOP'"),
        (
            {"names": {"monoton": "x"}},
            r"unknown model, arm, attack or metric 'monoton'; did you mean 'monotone",
        ),
    ],
)
def test_what_is_not_there_is_said_with_what_is(made, asked, said):
    with pytest.raises(UsageError, match=said):
        report.choose(made(), **asked)


def test_names_stand_wherever_labels_do(made):
    names = {"monotone": "Monotone (ours)", "hotflip": "HotFlip", "Pythia_1.4B": "P"}
    found = report.choose(made(), names=names | {"perplexity": "PPL"})
    tables = {table.key: table for table in found.tables}
    assert tables["main"].rows[1][0].text == "P (Monotone (ours))"
    assert "HotFlip: dL" in headings(tables["main"])
    control = tables["controls"].rows[0][1]
    assert control.text == "HotFlip : random"
    assert control.names == (("attack", "hotflip"), ("control", "random"))
    metrics = tables["metrics.Pythia_1.4B"]
    assert metrics.title == "Metrics of P"
    assert headings(metrics) == ["metric", "baseline", "Monotone (ours)"]
    assert {row[0].text.partition(".")[0] for row in metrics.rows} == {"PPL"}
    (ours,) = [x for x in found.verdicts.arms if x.reference]
    assert (ours.model, ours.arm) == ("P", "Monotone (ours)")
    cells = [x for table in found.tables for row in table.rows for x in row]
    shown = [cell.text + cell.short for cell in cells if isinstance(cell, Label)]
    assert not [text for text in shown if "monotone" in text]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("random, hotflip and Pythia_1.4B (monotone).", "R, hotflip and P (monotone)."),
        ("hotflip-random, random-2, x.random, random_", None),
        ("randomly, Pythia_1.4B.s1, Pythia_1", None),
        ("random: 'random', random.", "R: 'R', R."),
    ],
)
def test_a_part_of_a_name_is_another_name(made, text, said):
    whole = replace(made(), warnings=[text])
    found = report.choose(whole, names={"random": "R", "Pythia_1.4B": "P"})
    assert found.warnings == [said or text]


@pytest.mark.parametrize("style", ["text", "markdown", "latex", "json", "screen"])
def test_every_format_has_the_chosen_names(made, style):
    chosen = report.choose(made(), ["main"], names={"monotone": "Ours"})
    text = report.render(chosen, style)
    assert "Ours" in text
    assert ("Costs" in text) == ("Diagnostics" in text) is False
