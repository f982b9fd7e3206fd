"""The log of a unit, apart from what units write into it."""

import logging
import sys

import pytest

from harness.running.log import unit_log


@pytest.fixture
def printing():
    """Return a function that lets the root logger print."""
    added = []

    def add(stream, level=logging.NOTSET):
        added.append(logging.StreamHandler(stream))
        added[-1].setLevel(level)
        logging.root.addHandler(added[-1])

    yield add
    for handler in added:
        logging.root.removeHandler(handler)


def test_a_handler_may_print_what_is_logged(tmp_path, capsys, printing):
    """A library sets one up within a unit, where what is printed is logged."""
    with unit_log(tmp_path / "log.txt"):
        printing(sys.stdout)
        print("said")
        logging.getLogger("somebody").warning("warned")
    assert capsys.readouterr().out == "said\nwarned\n"
    log = (tmp_path / "log.txt").read_text()
    assert log.count("harness.printed: said") == 1
    assert log.count("somebody: warned") == 1


def test_what_is_printed_is_printed_once(tmp_path, capsys, printing):
    printing(sys.stdout)
    with unit_log(tmp_path / "log.txt"):
        print("said")
    assert capsys.readouterr().out == "said\n"


def test_nothing_is_hidden_in_a_log(tmp_path):
    with unit_log(tmp_path / "log.txt"):
        logging.getLogger("somebody").warning("\x1b[2J\u202eevil")
    assert r"somebody: \x1b[2J<U+202E>evil" in (tmp_path / "log.txt").read_text()


def test_others_handlers_show_no_more_of_us_than_before(tmp_path, capsys, printing):
    printing(sys.stdout)
    ours = logging.getLogger("harness.somewhere")
    with unit_log(tmp_path / "log.txt"):
        ours.info("for the log")
        ours.warning("for everybody")
    ours.warning("afterwards")
    assert capsys.readouterr().out == "for everybody\nafterwards\n"
    log = (tmp_path / "log.txt").read_text()
    assert "for the log" in log
    assert "for everybody" in log


def test_what_libraries_note_for_their_tools_is_neither_logged_nor_made(
    tmp_path, monkeypatch
):
    """A compiler prints all that it does where anybody listens to its trace."""
    from torch._logging import trace_structured

    # Torch itself listens to the first message, and pytest to all.
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "handlers", [])
    made = []
    apart = logging.getLogger("apart")
    apart.propagate, apart.level = False, logging.DEBUG
    with unit_log(tmp_path / "log.txt"):
        trace_structured("name", payload_fn=lambda: made.append("all") or "all")
        apart.debug("for its developers")
        apart.warning("for us")
    assert not made
    log = (tmp_path / "log.txt").read_text()
    assert "apart: for us" in log
    assert log.count("\n") == 1
