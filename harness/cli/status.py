"""``harness status``: what is done, what failed, what is missing."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli import options


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.json_output
def command(run: Path, as_json: bool) -> None:
    """Say what is done in a run folder, and what changed since.

    What changed is the version or source of a plugin, or the harness's code, between
    the making of a record and now.
    """
    from harness.run.survey import survey
    from harness.status import describe, document

    found = survey(run)
    if as_json:
        import json

        click.echo(json.dumps(document(found), indent=1))
    else:
        click.echo(describe(found))
