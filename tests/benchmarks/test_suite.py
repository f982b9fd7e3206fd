"""The frozen suite: what it runs, on what, and what its table says."""

import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def suite(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import suite

    yield suite
    for name in ("suite", "attacks", "trained"):
        sys.modules.pop(name, None)


@pytest.fixture
def made(suite, tmp_path):
    """Return the options of a call, after the model and the texts are made."""
    options = suite.parse_arguments(["--shape", "tiny", "--work", str(tmp_path)])
    suite.prepare(options, replace(suite.SHAPES["tiny"], train_seconds=0.1))
    return options


def test_the_suite_has_45_units_that_can_all_run(suite, made, cli):
    command = suite.harness_command(made, suite.SHAPES["tiny"])
    arguments = command[command.index("run") + 1 :]
    found = cli("plan", *arguments)
    assert found.code == 0
    assert found.out.splitlines()[-1].startswith("3 variants, 42 cells: 45 new")


def test_documents_are_all_of_a_text_but_a_rest(suite):
    text = "".join(f"line {number}\n" for number in range(3000))
    documents = [*suite.cut(text)]
    assert text.startswith("".join(documents))
    assert len(text) - sum(map(len, documents)) < suite.DOCUMENT
    assert all(len(x) < suite.DOCUMENT + 10 for x in documents)


def test_a_run_whose_time_is_over_is_stopped_by_a_signal(suite, tmp_path):
    code = "import signal, time; signal.signal(15, lambda *a: exit(75)); time.sleep(60)"
    started = time.monotonic()
    assert suite.run([sys.executable, "-c", code], tmp_path / "out", 3) == 75
    assert time.monotonic() - started < 3 + suite.GRACE_SECONDS


def test_the_first_pass_is_the_first_certificates(suite, tmp_path):
    log = tmp_path / "log.txt"
    log.write_text(
        "2026-01-01 10:00:00,000 INFO harness.running.journal: certify the model ...\n"
        "2026-01-01 10:00:20,250 INFO harness.running.journal: load ...\n"
        "2026-01-01 10:00:24,000 INFO harness.running.journal: load took 3.8 s\n"
        "2026-01-01 10:00:25,500 INFO harness.running.journal: certify the model ...\n"
    )
    assert suite.first_pass(log, datetime(2026, 1, 1, 10, 0, 10)) == 15.5
    assert [*suite.stages(log)] == [("load", 3.8)]


def test_the_table_has_a_line_for_each_record(suite, make_run, capsys):
    run = make_run(seeds=[1])
    suite.show(run, 1e12, datetime(2026, 1, 1))
    lines = capsys.readouterr().out.splitlines()
    assert sum("hotflip" in line for line in lines) == 2
