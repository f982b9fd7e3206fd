"""``harness export``: a run folder as one file, and in the formats of other tools."""

from __future__ import annotations

from pathlib import Path

import click

from harness import results
from harness.base import UsageError
from harness.cli import options
from harness.cli.printing import answer


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help=(
        "By default in the current folder: NAME.tar.gz, the folder NAME-lm-eval, or "
        "NAME.parquet."
    ),
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["archive", "lm-eval", "parquet"]),
    default="archive",
    show_default=True,
    help=(
        "lm-eval: clean metrics as it writes them, a file for each variant; parquet: "
        "all samples, typed."
    ),
)
@click.option("--models", is_flag=True, help="The frozen subjects, too.")
@options.plugins
@options.trust
def command(
    run: Path,
    output: Path | None,
    style: str,
    models: bool,
    plugins: tuple[Path, ...],
    trust: bool,
) -> None:
    """Write a run folder into one archive or for other tools, or unpack one.

    The archive has suites, records, samples, reports and checksums; paths are names of
    files, and no host or user is named. Where RUN is such a file, it is checked and
    unpacked, into NAME or the folder that -o names; `harness validate` reads that.
    """
    writes_file = style == "parquet" or (style == "archive" and run.is_dir())
    if writes_file and output is not None and output.is_dir():
        raise UsageError(f"{output} is a folder: name the file to write")
    if style != "archive":
        for file in _for_others(run, output, style, models, plugins, trust):
            answer(f"wrote {file}")
    elif run.is_dir():
        file = output or Path(f"{run.resolve().name}.tar.gz")
        answer(f"wrote {results.export_run(run, file, models=models)}")
    else:
        folder = results.import_run(run, output or Path(run.name.split(".")[0]))
        answer(f"unpacked {folder}; try it:  harness validate {folder}")


def _for_others(
    root: Path,
    output: Path | None,
    style: str,
    models: bool,
    plugins: tuple[Path, ...],
    trust: bool,
) -> list[Path]:
    if models:
        raise UsageError("--models is for the archive: no other format holds models")
    run, name = (
        results.load_run(root, plugins=plugins, trust=trust),
        root.resolve().name,
    )
    if style == "lm-eval":
        return results.export_lm_eval(run, output or Path(f"{name}-lm-eval"))
    return [results.export_parquet(run, output or Path(f"{name}.parquet"))]
