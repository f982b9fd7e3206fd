"""What commands print: answers to standard output, all else to standard error."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.base import stdout_apart, visible

if TYPE_CHECKING:
    from harness.suite import Experiment


ValueT = TypeVar("ValueT", bool, str)
_ANSWERS = "harness.answers"


def answer(text: object, *, end: str = "\n") -> None:
    """Print what was asked for, nothing in it hidden."""
    context = click.get_current_context(silent=True)
    stream = context.meta.get(_ANSWERS) if context else None
    click.echo(f"{visible(text)}{end}", nl=False, file=stream)


def only_answers(context: click.Context) -> None:
    """Let nothing else reach standard output until the command ends.

    What plugins print goes to standard error, so that programs can read the answer.
    """
    if _ANSWERS not in context.meta:
        context.meta[_ANSWERS] = context.with_resource(stdout_apart())


def for_programs(context: click.Context, _: Any, value: ValueT) -> ValueT:
    """Ask for `only_answers` where an option says JSON, whose callback this is."""
    if value in (True, "json"):
        only_answers(context)
    return value


def terminal_width() -> int | None:
    """Return how many characters a line of the terminal has; None where none is."""
    return shutil.get_terminal_size((0, 0)).columns or None


def say(text: object) -> None:
    """Tell the user something on the way, nothing in it hidden."""
    click.echo(visible(text), err=True)


def warn_of(experiment: Experiment) -> None:
    """Say what is left out where a suite is only read."""
    for problem in experiment.warnings:
        say(f"warning: {problem}")
