"""``harness validate``: check suites, records and run folders."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli import options


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="PATH...",
    type=click.Path(exists=True, path_type=Path),
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="How findings are printed; `github` annotates the files of a pull request.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@options.plugins
def command(
    paths: tuple[Path, ...], style: str, as_json: bool, plugins: tuple[Path, ...]
) -> int:
    """Check suites, records and whole run folders.

    Of records: schema, ids recomputed, samples' hash and row count, results recomputed
    from the samples. Of run folders besides: references between records, and
    completeness against the resolved suite. Exits with 0 where nothing is found, 1 for
    findings in records or a run, 2 for an invalid suite.
    """
    from harness.run import render, validate

    validation = validate(paths, plugins)
    click.echo(render(validation, "json" if as_json else style))
    return validation.exit_code
