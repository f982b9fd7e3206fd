"""``harness show``: the examples of a run, as a person reads them."""

import pytest


@pytest.fixture
def run(make_run):
    return make_run(failed=("monotone.s2.random",))


def test_without_a_cell_it_lists_them(cli, run):
    outcome = cli("show", run)
    assert outcome.code == 0
    lines = [line for line in outcome.out.splitlines() if ".s" in line]
    assert len(lines) == 8
    assert sum("failed" in line for line in lines) == 1


def test_examples_of_a_cell_with_what_changed(cli, run):
    outcome = cli("show", run, "baseline.s1.hotflip")
    assert outcome.code == 0
    assert outcome.out.count("nats/token, dL +") == 40
    assert "no text gives these tokens" in outcome.out
    only = cli("show", run, "baseline.s1.hotflip", "--text-only")
    assert only.out.count("nats/token, dL +") == 30
    assert "no text gives these tokens" not in only.out


def test_ids_are_whole_on_a_narrow_terminal(cli, run, monkeypatch):
    """They are what the next command asks for."""
    monkeypatch.setenv("COLUMNS", "40")
    letters = "".join(cli("show", run).out.split())
    ids = [cell.name for cell in (run / "cells").iterdir()]
    assert ids
    for cell in ids:
        assert cell.rpartition("-")[2] in letters


def test_the_worst_come_first(cli, run):
    outcome = cli("show", run, "--worst", "10")
    rises = [
        float(line.rpartition("dL ")[2].split(",")[0])
        for line in outcome.out.splitlines()
        if "dL +" in line
    ]
    assert len(rises) == 10
    assert rises == sorted(rises, reverse=True)


def test_one_example_with_its_trace(cli, run):
    outcome = cli("show", run, "baseline.s1.hotflip", "7")
    assert "test/7" in outcome.out
    assert "999" in outcome.out  # the token that the trace names


@pytest.mark.parametrize("asked", [[], ["baseline.s1.hotflip", "7"], ["--worst", "2"]])
def test_no_line_ends_with_blanks(cli, run, asked):
    lines = cli("show", run, *asked).out.splitlines()
    assert len(lines) > 4
    assert not [line for line in lines if line.endswith(" ")]


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (["hotflop"], "has 'hotflop' in its id; did you mean"),
        (["monotone.s2.random"], "is failed: out of paper"),
        (["baseline.s1.hotflip", "400"], "no example '400'; there are test/0"),
    ],
)
def test_what_is_not_there_is_said(cli, run, asked, complaint):
    outcome = cli("show", run, *asked)
    assert outcome.code == 2
    assert complaint in outcome.err
