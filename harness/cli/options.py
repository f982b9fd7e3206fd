"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

json_output = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for other programs."
)
"""Adds the argument `as_json`."""

plugins = click.option(
    "--plugins",
    "plugins",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="PATH",
    help="A plugin file, or a folder of them; may be given again.",
)
"""Adds the argument `plugins`, a tuple of paths."""

suite = click.argument(
    "suite", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
"""Adds the argument `suite`, a path."""
