"""What commands print: answers to standard output, all else to standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.base import visible

if TYPE_CHECKING:
    from harness.suite import Experiment


def answer(text: object, *, end: str = "\n") -> None:
    """Print what was asked for, nothing in it hidden."""
    click.echo(f"{visible(text)}{end}", nl=False)


def say(text: object) -> None:
    """Tell the user something on the way, nothing in it hidden."""
    click.echo(visible(text), err=True)


def warn_of(experiment: Experiment) -> None:
    """Say what is left out where a suite is only read."""
    for problem in experiment.warnings:
        say(f"warning: {problem}")
