"""``harness export``: a run folder as one file for an appendix, and back."""

from __future__ import annotations

from pathlib import Path

import click

from harness import results
from harness.cli.printing import answer


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The archive; by default NAME.tar.gz in the current folder.",
)
@click.option("--models", is_flag=True, help="The frozen subjects, too.")
def command(run: Path, output: Path | None, models: bool) -> None:
    """Write a run folder into one archive, or unpack one.

    The archive has suites, records, samples, reports and checksums; paths are names of
    files, and no host or user is named. Where RUN is such a file, it is checked and
    unpacked, into NAME or the folder that -o names; `harness validate` reads that.
    """
    if run.is_dir():
        file = output or Path(f"{run.resolve().name}.tar.gz")
        answer(f"wrote {results.export_run(run, file, models=models)}")
        return
    folder = results.import_run(run, output or Path(run.name.split(".")[0]))
    answer(f"unpacked {folder}; try it:  harness validate {folder}")
