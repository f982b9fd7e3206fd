"""``harness report``, ``status`` and ``validate`` as a user calls them."""

import json
import os
import re

import pytest


@pytest.mark.parametrize(
    ("style", "start"),
    [("text", "Report of"), ("markdown", "# Report"), ("json", "{"), ("latex", "% ")],
)
def test_report_prints_each_format(cli, make_run, style, start):
    outcome = cli("report", make_run(seeds=[1]), "--format", style)
    assert outcome.code == 0
    assert outcome.out.startswith(start)


def test_report_writes_a_file(cli, make_run, tmp_path):
    file = tmp_path / "paper" / "table.tex"
    outcome = cli("report", make_run(seeds=[1]), "--format", "latex", "-o", file)
    assert (outcome.code, outcome.out) == (0, "")
    assert r"\toprule" in file.read_text()


@pytest.mark.parametrize(("width", "name"), [("column", "table"), ("page", "table*")])
def test_latex_is_as_wide_as_asked(cli, make_run, width, name):
    wanted = ["--format", "latex", "--tables", "main", "--width", width]
    outcome = cli("report", make_run(seeds=[1]), *wanted)
    assert outcome.out.count(rf"\begin{{{name}}}") == 1


def test_report_writes_into_a_pipe_and_does_not_replace_it(cli, make_run, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    outcome = cli("report", make_run(seeds=[1]), "-o", pipe)
    assert outcome.code == 0, outcome.err
    assert os.read(reader, 9) == b"Report of"
    os.close(reader)
    assert pipe.is_fifo()


def test_report_takes_another_threshold(cli, make_run):
    run = make_run(seeds=[1])
    assert "exp(dL) > 2.5," in cli("report", run, "--threshold", "1.5").out
    assert cli("report", run, "--threshold", "-1").code == 2


def test_report_prints_one_screen_and_all_tables_when_asked(cli, make_run):
    run = make_run(seeds=[1])
    screen, whole = cli("report", run).out, cli("report", run, "--tables", "all").out
    assert screen.startswith("Report of")
    assert "\nCosts\n=====" not in screen
    assert "\nCosts\n=====" in whole
    assert screen.count("\n") <= 50 < whole.count("\n")


def test_report_takes_tables_columns_and_names(cli, make_run):
    chosen = ["--tables", "main,costs", "--columns", "perplexity, FLOP"]
    named = ["--names", "monotone=Ours (a=1)", "--names", "baseline=Plain"]
    outcome = cli("report", make_run(seeds=[1]), *chosen, *named)
    assert outcome.code == 0
    headings = re.findall(r"^Ours \(a=1\) +\S+$|^arm +(.*)$", outcome.out, re.MULTILINE)
    assert headings == ["perplexity", "", "FLOP", ""]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tables", "mian"], "unknown table 'mian'; did you mean 'main'?"),
        (["--columns", "perplexty"], "did you mean 'perplexity'?"),
        (["--names", "monoton=x"], "did you mean 'monotone'?"),
        (["--names", "monotone"], "expected LABEL=NAME, not 'monotone'"),
        (["--names", "monotone="], "expected LABEL=NAME, not 'monotone='"),
        (["--tables", "main", "--format", "html"], "are not for html"),
    ],
)
def test_what_a_report_does_not_have_is_wrong_usage(cli, make_run, options, said):
    outcome = cli("report", make_run(seeds=[1]), *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
    assert outcome.err.count("\n") <= 4


def test_report_of_no_run_is_wrong_usage(cli, tmp_path):
    outcome = cli("report", tmp_path)
    assert outcome.code == 2
    assert "is no run folder" in outcome.err


def test_status_lists_the_units(cli, make_run):
    run = make_run(seeds=[1], failed=("monotone.s1.hotflip",))
    outcome = cli("status", run)
    assert outcome.code == 0
    assert "5 complete, 1 failed, 0 missing, 0 invalid" in outcome.out
    assert "failed: out of paper" in outcome.out


def test_status_answers_programs(cli, make_run):
    run = make_run(seeds=[1], absent=("monotone.s1.random",))
    answer = json.loads(cli("status", run, "--json").out)
    assert answer["counts"]["missing"] == 1
    (unit,) = [u for u in answer["units"] if u["status"] == "missing"]
    assert (unit["arm"], unit["seed"], unit["attack"]) == ("monotone", 1, "random")
    assert answer["time"]["units"] == 1
    assert answer["time"]["left_s"] > 0


@pytest.mark.parametrize("absent", [(), ("monotone.s1.random",)])
def test_status_says_how_long_the_rest_takes_if_there_is_one(cli, make_run, absent):
    counts = cli("status", make_run(seeds=[1], absent=absent)).out.splitlines()[0]
    assert (" left (" in counts) == bool(absent)


def test_status_names_what_changed_since(cli, make_run):
    run = make_run(seeds=[1])
    for path in run.glob("cells/*/record.json"):
        document = json.loads(path.read_text())
        document["provenance"]["plugins"][-1]["version"] = "0.0.1"
        path.write_text(json.dumps(document))
    outcome = cli("status", run)
    assert "changed since the records were made" in outcome.out
    assert "attack hotflip: version 0.0.1 then" in outcome.out
    assert "(4 records)" in outcome.out  # of the control too


def test_validate_says_that_a_run_is_valid(cli, make_run):
    run = make_run(seeds=[1])
    outcome = cli("validate", run)
    assert (outcome.code, outcome.out) == (0, f"valid: {run}\n")


def test_validate_exits_with_1_for_records_and_2_for_suites(cli, make_run, tmp_path):
    run = make_run(seeds=[1], absent=("monotone.s1.random",))
    suite = tmp_path / "bad.yaml"
    suite.write_text("name: bad\n")
    assert cli("validate", run).code == 1
    assert cli("validate", suite).code == 2
    assert cli("validate", run, suite).code == 2
    assert cli("validate", tmp_path / "absent").code == 2


def test_validate_answers_programs(cli, make_run):
    run = make_run(seeds=[1], failed=("monotone.s1.hotflip",))
    answer = json.loads(cli("validate", run, "--json").out)
    assert answer["valid"] is False
    (finding,) = answer["findings"]
    assert finding["path"] == "error"
    assert finding["message"] == "the cell failed: out of paper"


def test_validate_annotates_pull_requests(cli, make_run):
    run = make_run(seeds=[1])
    (path,) = run.glob("cells/*baseline*hotflip*/record.json")
    path.write_text(path.read_text().replace('"seed": 1', '"seed": "50%"', 1))
    lines = cli("validate", run, "--format", "github").out.splitlines()
    (number,) = [
        n
        for n, line in enumerate(path.read_text().splitlines(), 1)
        if '"seed": "50%"' in line
    ]
    told = 'seed: Input should be a valid integer, not "50%25"'
    assert lines[0] == f"::error file={path},line={number}::{told}"
