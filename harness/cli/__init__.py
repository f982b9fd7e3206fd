"""The command line: ``harness COMMAND ...``.

Each command is a module of this package with a click command called `command`; it is
imported when it is invoked, not before, so that ``harness --help`` is quick. A command
returns its exit code, or None for 0.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import io
import os
import sys
import traceback
import warnings
from typing import Any, NoReturn, TextIO

import click

from harness import __version__
from harness.base import (
    INTERRUPTED,
    INTERRUPTED_LINE,
    HarnessError,
    PluginError,
    Stopped,
    SuiteError,
)
from harness.cli.printing import say

__all__ = ["main"]

BUG = 3
COMMANDS = {
    "attack": "Attack one model on texts, and say what the attacks are worth.",
    "run": "Run every variant and cell that is not done, and print what came out.",
    "plan": "List the units of a suite, why each would run, and what all costs.",
    "power": "Say which differences a suite can find, and what more would bring.",
    "status": "Say what is done in a run folder, and what changed since.",
    "cancel": "Take the jobs of a run out of the cluster's queue, waiting ones first.",
    "report": "Make the tables of a run folder, its page, or its figures.",
    "show": "Show adversarial examples of a run folder.",
    "compare": "Compare what two runs have in common, by their labels.",
    "replay": "Run cells of a run folder again, and compare what they find.",
    "export": "Write a run folder into one archive or for other tools, or unpack one.",
    "validate": "Check suites, records and whole run folders.",
    "list": "List the plugins.",
    "describe": "Describe a plugin: what it does, its options, cost and source.",
    "new": "Write a working plugin and its test, or a suite, to start from.",
    "prefetch": "Download all that a suite needs, to run without network later.",
    "doctor": "Check this machine, and whether it has what a suite names.",
    "schema": "Print the JSON Schema of suites, records, samples, verdicts or reports.",
}
"""The commands and what they do, in the order of ``harness --help``."""


class LazyGroup(click.Group):
    """Commands that are imported when they are used; help lines that are not."""

    def list_commands(self, ctx: click.Context) -> Any:
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"harness.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(self, ctx: click.Context, args: Any) -> Any:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="harness")
def group() -> None:
    """Evaluate the adversarial robustness of language models.

    Find out whether a change to a model makes it harder to attack: train it with and
    without the change, attack both with the same budget, and compare.

    Exit codes: 0 all complete and valid; 1 a cell failed or a record is invalid;
    2 wrong usage or an invalid suite; 3 a bug of ours; 4 nothing matched; 75 stopped by
    a signal, run again to go on; 130 Ctrl-C.
    """


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code; `args` default to the process's."""
    warnings.showwarning = _show_warning
    sys.exit(_exit_code(args))


def _exit_code(args: list[str] | None) -> int:
    stdout = sys.stdout
    try:
        return int(group.main(args, prog_name="harness", standalone_mode=False) or 0)
    except click.Abort:  # click's word for KeyboardInterrupt
        say(INTERRUPTED_LINE)
        return INTERRUPTED
    except Stopped as stopped:
        say(stopped)
        return stopped.exit_code
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        say(shown.getvalue().rstrip("\n"))
        return error.exit_code
    except SuiteError as error:  # its lines start with file and line
        say(error)
        return error.exit_code
    except HarnessError as error:
        say(f"error: {error}")
        return error.exit_code
    except SystemExit as left:  # a 0 would say that all is complete
        # Who read the answer has left, as `head` does: so click ends, and leaves a
        # stream that does not complain.
        if sys.stdout is not stdout:
            return HarnessError.exit_code
        say(traceback.format_exc().rstrip())
        say(f"error: a plugin called sys.exit({left.code!r})")
        return PluginError.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort, so that 1 is no bug
        return _unforeseen(error)


def _unforeseen(error: Exception) -> int:
    """Say what nothing has said yet, and whose matter it is; return the exit code."""
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        where = f"{error.filename}: " if error.filename is not None else ""
        say(f"error: {where}{os.strerror(error.errno)}")
        return _OF_THE_DISK[error.errno]
    if isinstance(error, MemoryError):
        say("error: there is not enough memory for this")
        return HarnessError.exit_code
    from harness.api import plugin_frame

    say(traceback.format_exc().rstrip())
    plugin = plugin_frame(error)
    if plugin is not None:
        what = f"{type(error).__name__}: {error}"
        say(f"error: {plugin.filename}:{plugin.lineno}: the plugin raised {what}")
        return PluginError.exit_code
    say("this is a bug of harness, not of yours; please report it")
    return BUG


_OF_THE_DISK = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG), 1
    ),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE), 1),
    **dict.fromkeys((errno.ENOENT, errno.ENXIO, errno.ENODEV), 1),
    # These are paths that cannot be what they are to be.
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST), 2),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), 2),
}
"""Errors of the operating system that are none of ours, with their exit codes."""


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print our own warnings as a sentence; where they were raised helps nobody."""
    if category.__module__.startswith("harness."):
        say(f"warning: {message}")
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        say(text.rstrip())
