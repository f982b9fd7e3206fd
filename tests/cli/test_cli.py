"""The frame of the command line: help, exit codes, and what is said of errors."""

import importlib
import sys
import types
import warnings
from pathlib import Path

import click
import pytest

from harness import __version__
from harness.api import PluginWarning
from harness.base import Problem, errors
from harness.cli import COMMANDS


@pytest.fixture
def doing(monkeypatch):
    """Return a function that makes ``harness doctor`` do something else."""

    def install(callback):
        module = types.SimpleNamespace(command=click.command()(callback))
        monkeypatch.setitem(sys.modules, "harness.cli.doctor", module)

    return install


@pytest.fixture
def failing(doing):
    """Return a function that makes ``harness doctor`` raise an exception."""

    def install(error):
        def command():
            raise error

        doing(command)

    return install


def test_help_lists_every_command(cli):
    outcome = cli("--help")
    assert outcome.code == 0
    text = " ".join(outcome.out.split())
    for name, line in COMMANDS.items():
        assert f" {name} {line}" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_in_the_overview_is_the_command_s_own(name, cli):
    command = importlib.import_module(f"harness.cli.{name}").command
    assert command.help.partition("\n")[0] == COMMANDS[name]
    assert cli(name, "--help").code == 0


LIGHT = {"click", "harness", "lazy_loader", "pluggy"}
"""What `harness --help` may import besides Python itself; it takes 0.1 s."""
HEAVY = {"torch", "transformers", "scipy", "datasets", "lm_eval"}


def test_help_imports_nothing_but_the_command_line_itself(imported):
    modules = imported(
        "from harness.cli import main",
        "try: main(['--help'])",
        "except SystemExit: pass",
    )
    tops = {name.partition(".")[0] for name in modules}
    assert tops - sys.stdlib_module_names <= LIGHT
    assert len(modules) < 250  # of Python's own modules too


def test_no_command_imports_a_heavy_library_before_it_works(imported):
    commands = ", ".join(f"harness.cli.{name}" for name in COMMANDS)
    plugins = "from harness.api import load_registry; load_registry()"
    assert not HEAVY & imported(f"import {commands}", plugins)


def test_a_plan_loads_no_heavy_library(imported):
    """Not even to say what it costs."""
    quickstart = str(Path(__file__).parents[2] / "suites" / "quickstart.yaml")
    modules = imported(
        "from harness.cli import main",
        f"try: main(['plan', {quickstart!r}, '--device', 'H100'])",
        "except SystemExit: pass",
    )
    assert not HEAVY & modules


def test_version(cli):
    assert cli("--version").out == f"harness, version {__version__}\n"


def test_an_unknown_command_is_a_usage_error_with_the_nearest_match(cli):
    outcome = cli("lsit")
    assert outcome.code == 2
    assert "No such command 'lsit'. Did you mean 'list'?" in outcome.err


def test_an_unknown_option_is_a_usage_error(cli):
    assert cli("list", "--jsn").code == 2


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.HarnessError("the sentence"), 1, "error: the sentence\n"),
        (errors.CellError("the sentence"), 1, "error: the sentence\n"),
        (errors.RecordError("the sentence"), 1, "error: the sentence\n"),
        (errors.UsageError("the sentence"), 2, "error: the sentence\n"),
        (errors.MissingResource("the sentence"), 2, "error: the sentence\n"),
        (errors.PluginError("the sentence"), 2, "error: the sentence\n"),
        (errors.NothingMatched("the sentence"), 4, "error: the sentence\n"),
        (errors.Stopped("stopped; run it again"), 75, "stopped; run it again\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_the_user_prints_its_sentence_and_its_code(
    failing, cli, error, code, said
):
    failing(error)
    outcome = cli("doctor")
    assert (outcome.code, outcome.err) == (code, said)


def test_all_problems_of_a_suite_are_printed_one_a_line(failing, cli):
    problems = [
        Problem("s.yaml", ("seeds",), "is empty", 3),
        Problem("s.yaml", ("arms", "x"), "is unknown", 7),
    ]
    failing(errors.SuiteError(problems))
    outcome = cli("doctor")
    assert outcome.code == 2
    assert outcome.err == "s.yaml:3: seeds: is empty\ns.yaml:7: arms.x: is unknown\n"


def test_a_bug_prints_its_traceback_and_exits_3(failing, cli):
    failing(ZeroDivisionError("by zero"))
    outcome = cli("doctor")
    assert outcome.code == 3
    assert "Traceback" in outcome.err
    assert "ZeroDivisionError: by zero" in outcome.err
    assert "this is a bug of harness" in outcome.err


def test_ctrl_c_exits_130(failing, cli):
    failing(KeyboardInterrupt())
    assert cli("doctor").code == 130


def test_our_warnings_are_sentences(doing, cli):
    def command():
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn(PluginWarning("x is left out"), stacklevel=1)

    doing(command)
    assert cli("doctor").err == "warning: x is left out\n"
