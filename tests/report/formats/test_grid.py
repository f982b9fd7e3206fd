"""Columns in a terminal."""

from __future__ import annotations

from harness.report.formats.grid import grid


def test_columns_align_and_groups_stand_above_their_columns() -> None:
    text = grid(
        groups=["", "losses", "losses"],
        titles=["arm", "clean", "dL"],
        rows=[["baseline", "2.4", "0.55"], ["gauge", "12.4", "0.5"]],
        right=[False, True, True],
    )
    assert text.splitlines() == [
        "          -- losses -",
        "arm       clean    dL",
        "--------  -----  ----",
        "baseline    2.4  0.55",
        "gauge      12.4   0.5",
    ]


def test_a_group_wider_than_its_columns_widens_the_last() -> None:
    lines = grid(["", "a long name"], ["x", "y"], [["1", "2"]], [True, True])
    assert lines.splitlines() == [
        "   a long name",
        "x            y",
        "-  -----------",
        "1            2",
    ]


def test_a_table_without_rows_has_its_headings() -> None:
    assert grid(["", ""], ["a", "b"], [], [True, True]) == "a  b\n-  -"
