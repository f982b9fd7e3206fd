"""The frame of the command line: help, exit codes, and what is said of errors."""

import ast
import errno
import importlib
import os
import subprocess
import sys
import types
import warnings
from pathlib import Path

import click
import pytest

import harness
from harness import __version__
from harness.api import PluginWarning, registry
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


def test_what_only_reads_a_suite_loads_no_heavy_library(imported):
    """Not even to say what it costs, here or elsewhere, and whether it can be had."""
    quickstart = str(Path(__file__).parents[2] / "suites" / "quickstart.yaml")
    modules = imported(
        "from harness.cli import main",
        "for where in [], ['--device', 'H100']:",
        f"  try: main(['plan', {quickstart!r}, *where])",
        "  except SystemExit: pass",
        "from pathlib import Path; from harness.suite import validate_suite",
        f"validate_suite(Path({quickstart!r}))",
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


HOSTILE = "\x1b[2J\u202eevil\x07\ud800"
SPELT = r"\x1b[2J<U+202E>evil\x07<U+D800>"


@pytest.mark.parametrize(
    "error",
    [
        errors.UsageError(HOSTILE),
        errors.Stopped(HOSTILE),
        errors.SuiteError([Problem(HOSTILE, ("arms", HOSTILE), HOSTILE, 3)]),
        click.UsageError(HOSTILE),
        SystemExit(HOSTILE),
        OSError(errno.ENOSPC, "full", HOSTILE),
        ZeroDivisionError(HOSTILE),
    ],
    ids=lambda error: type(error).__name__,
)
def test_nothing_hidden_reaches_the_terminal(failing, cli, error):
    failing(error)
    said = cli("doctor").err
    # What a traceback shows, Python has spelt; of codes, click itself leaves nothing.
    assert any(
        x in said for x in (SPELT, SPELT.removeprefix(r"\x1b[2J"), repr(HOSTILE))
    )
    assert not set(said) & set(HOSTILE) - set(SPELT)


def test_warnings_are_shown_as_they_can_be_seen(doing, cli):
    def command():
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn(PluginWarning(HOSTILE), stacklevel=1)

    doing(command)
    assert cli("doctor").err == f"warning: {SPELT}\n"


def test_all_that_is_printed_goes_through_one_door():
    """`click.echo` and `print` are called nowhere else: `visible` stands before it."""
    allowed = {
        "cli/printing.py",
        "base/progress.py",
        "running/diagnostics/plain_replay.py",
    }
    root = Path(harness.__file__).parent
    calls = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("click.echo", "click.secho", "print")
    }
    assert calls <= allowed


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "", "a/b"), 1, "error: a/b: No space left on device\n"),
        (OSError(errno.ENOSPC, ""), 1, "error: No space left on device\n"),
        (OSError(errno.EROFS, "", "a/b"), 1, "error: a/b: Read-only file system\n"),
        (PermissionError(errno.EACCES, "", "x"), 1, "error: x: Permission denied\n"),
        (NotADirectoryError(errno.ENOTDIR, "", "x"), 2, "error: x: Not a directory\n"),
        (OSError(errno.ENAMETOOLONG, "", "x"), 2, "error: x: File name too long\n"),
        (
            FileNotFoundError(errno.ENOENT, "", "x"),
            1,
            "error: x: No such file or directory\n",
        ),
        (MemoryError(), 1, "error: there is not enough memory for this\n"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_disk_is_no_bug(failing, cli, error, code, said):
    failing(error)
    outcome = cli("doctor")
    assert (outcome.code, outcome.err) == (code, said)


def test_what_a_plugin_raises_is_no_bug_of_ours(doing, cli, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def f():\n    raise KeyError('x')\n")
    module = registry._import_file(path)
    doing(lambda: module.f())
    outcome = cli("doctor")
    assert outcome.code == 2
    assert "bug of harness" not in outcome.err
    said = f"error: {path}:2: the plugin raised KeyError: 'x'"
    assert outcome.err.splitlines()[-1] == said


@pytest.mark.parametrize("command", ["schema record", "list --json", "--help"])
def test_a_reader_that_leaves_is_no_error_of_anyone(command):
    """As ``| head -n 1`` does; here before anything is written."""
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "harness", *command.split()],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (1, "")
