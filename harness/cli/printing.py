"""What commands print: answers to standard output, all else to standard error."""

from __future__ import annotations

import click

from harness.base import visible


def answer(text: object, *, end: str = "\n") -> None:
    """Print what was asked for, nothing in it hidden."""
    click.echo(f"{visible(text)}{end}", nl=False)


def say(text: object) -> None:
    """Tell the user something on the way, nothing in it hidden."""
    click.echo(visible(text), err=True)
