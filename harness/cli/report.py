"""``harness report``: make the tables of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from harness import report
from harness.base import UsageError, write_atomic
from harness.cli import options
from harness.cli.printing import answer, say, terminal_width, warn_of
from harness.running import RunFolder, survey


def _listed(_: Any, __: Any, text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",")] if text else []


def _named(_: Any, __: Any, texts: tuple[str, ...]) -> dict[str, str]:
    parts = [text.partition("=") for text in texts]
    for text, (label, _, name) in zip(texts, parts, strict=True):
        if not (label and name):
            raise click.BadParameter(f"expected LABEL=NAME, not {text!r}")
    return {label: name for label, _, name in parts}


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.formats(
    "text",
    "markdown",
    "json",
    "latex",
    "html",
    about=(
        "LaTeX needs booktabs and siunitx; JSON holds every number in full; HTML is "
        "one file for a browser, with figures and samples."
    ),
)
@click.option(
    "--threshold",
    type=options.Finite(min=0, min_open=True),
    metavar="X",
    help="Success is exp(dL) > 1 + X; other than the suite's, it is exploratory.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write here instead of to the terminal, or to report.html in the run folder.",
)
@click.option(
    "--figures",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write the figures here as PDF and SVG, instead of a report.",
)
@click.option(
    "--tables",
    callback=_listed,
    metavar="KEY,...",
    help="Only these tables, or `all`, which is more than the text shows otherwise.",
)
@click.option(
    "--columns",
    callback=_listed,
    metavar="NAME,...",
    help="Of each table, only these columns besides those that name its rows.",
)
@click.option(
    "--width",
    type=click.Choice(["column", "page"]),
    default="page",
    show_default=True,
    help="How wide LaTeX's tables may be.",
)
@click.option(
    "--names",
    callback=_named,
    multiple=True,
    metavar="LABEL=NAME",
    help="What to call a model, an arm, an attack or a metric; may be given again.",
)
@options.plugins
@options.trust
def command(
    run: Path,
    style: str,
    threshold: float | None,
    output: Path | None,
    figures: Path | None,
    tables: list[str],
    columns: list[str],
    names: dict[str, str],
    width: Literal["column", "page"],
    plugins: tuple[Path, ...],
    trust: bool,
) -> None:
    """Make the tables of a run folder, its page, or its figures.

    Text is one screen: verdicts, the main table, and what to look at next. Every table
    is there by --tables all, in every other format, and in the run's folder report/.
    Units that are missing, failed or invalid are marked as such; success rates are
    derived from the recorded losses, so any threshold can be asked for. No code is run
    that the folder names, but for plugins with --trust: without them, what needs them
    is in no verdict.
    """
    found = survey(run, plugins, trust=trust)
    warn_of(found.plan.experiment)
    made = report.build(found, threshold)
    if figures is not None:
        for path in report.write_figures(made, figures):
            answer(path)
        return
    chosen = tables or columns or names
    if style == "html" and chosen:
        raise UsageError(
            "--tables, --columns and --names are not for html, which holds all there is"
        )
    made = report.choose(made, tables, columns, names)
    if style == "text" and not tables:
        style = "screen"
    terminal = terminal_width() if output is None else None
    text = report.render(made, style, width, terminal=terminal)
    if output is None and style == "html":
        output = RunFolder(run).report_dir / "report.html"
        say(f"written to {output}")
    if output is None:
        answer(text, end="")
    elif output.exists() and not output.is_file():  # a device is not to be replaced
        output.write_text(text, encoding="utf-8")
    else:
        write_atomic(output, text)
