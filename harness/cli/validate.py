"""``harness validate``: check suites, records and run folders."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from harness import report, running
from harness.base import UsageError
from harness.cli import options
from harness.cli.printing import answer, say


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="PATH...",
    type=click.Path(exists=True, path_type=Path),
)
@options.formats(
    "text",
    "json",
    "github",
    about="How findings are printed; `github` annotates the files of a pull request.",
)
@options.plugins
@options.trust
@click.option(
    "--replay", is_flag=True, help="Score runs again with plain transformers, too."
)
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    metavar="N",
    help="Replay N rows of each cell and metric, drawn at random, and not all.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), help="Draw those of an earlier --rows again."
)
@click.option("--device", default="cpu", show_default=True, help="Where to replay.")
@click.option(
    "--suite",
    "published",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The suite that was published for the run, which must be what ran.",
)
@click.option(
    "--jobs",
    "processes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Check the records of a run in N processes; by default one for each core.",
)
def command(
    paths: tuple[Path, ...],
    style: str,
    plugins: tuple[Path, ...],
    trust: bool,
    published: Path | None,
    processes: int | None,
    **how: Any,
) -> int:
    """Check suites, records and whole run folders.

    Of suites: whether all that they name is known, and what they ask for can be had, as
    far as that is known in seconds: enough texts, prompts that the model can read,
    paths that lead somewhere.

    Of records: the schema, ids recomputed, hash and number of the samples, results
    recomputed from the samples. Of run folders besides: references between records,
    the same clean rows in all cells of a variant, budgets of controls (a warning),
    hashes of frozen models, traces and limits of attacks, reports made again, and
    completeness against the resolved suite. Exits with 0 where there is no error, 1 for
    errors in records or a run, 2 for an invalid suite.

    With --replay, losses, texts and gradients are computed again in a fresh process by
    plain transformers, and examples are cut again from their corpora. What no check
    can find stands in docs/security.md.

    No code is run that they name: plugins of theirs are loaded with --trust alone, and
    what cannot be judged without them is said.
    """
    validation = running.validate(
        paths,
        plugins,
        trust=trust,
        replaying=_replaying(**how),
        published=published,
        processes=processes,
    )
    stale = [x for each in validation.surveys for x in report.stale(each)]
    validation = replace(validation, problems=(*validation.problems, *stale))
    answer(PRINTED[style](validation))
    return validation.exit_code


def _replaying(
    replay: bool, rows: int | None, seed: int | None, device: str
) -> running.Replaying | None:
    """Return what is replayed, and say which rows are drawn."""
    if not replay:
        if rows is not None or seed is not None:
            raise UsageError("--rows and --seed say what to --replay")
        return None
    if rows is not None:
        seed = secrets.randbelow(2**32) if seed is None else seed
        say(f"replay: {rows} rows of each cell and metric, drawn by --seed {seed}")
    return running.Replaying(rows, seed or 0, device)


def _text(validation: running.Validation) -> str:
    lines = [
        str(problem)
        if problem.severity == "error"
        else f"{problem.severity}: {problem}"
        for problem in validation.problems
    ]
    return "\n".join([*lines, _summary(validation)])


def _json(validation: running.Validation) -> str:
    document = {
        "valid": not validation.errors,
        "checked": validation.checked,
        "findings": [problem.as_json() for problem in validation.problems],
    }
    return json.dumps(document, indent=1)


def _github(validation: running.Validation) -> str:
    annotations = [problem.as_annotation() for problem in validation.problems]
    return "\n".join([*annotations, _summary(validation)])


def _summary(validation: running.Validation) -> str:
    graded = [x for x in validation.problems if x.severity != "notice"]
    checked, count = ", ".join(validation.checked), len(graded)
    several = "s" if count > 1 else ""
    if validation.errors:
        return f"{count} finding{several} in {checked}"
    return (
        f"valid, with {count} warning{several}: {checked}"
        if count
        else f"valid: {checked}"
    )


PRINTED = {"text": _text, "json": _json, "github": _github}
"""What to print of a validation, by style."""
