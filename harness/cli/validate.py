"""``harness validate``: check suites, records and run folders."""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness import run
from harness.cli import options
from harness.cli.printing import answer, for_programs


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
    callback=for_programs,
    help="How findings are printed; `github` annotates the files of a pull request.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    callback=for_programs,
    help="The same as --format json.",
)
@options.plugins
@options.trust
def command(
    paths: tuple[Path, ...],
    style: str,
    as_json: bool,
    plugins: tuple[Path, ...],
    trust: bool,
) -> int:
    """Check suites, records and whole run folders.

    Of records: the schema, ids recomputed, hash and number of the samples, results
    recomputed from the samples. Of run folders besides: references between records,
    the same clean rows in all cells of a variant, budgets of controls (a warning), and
    completeness against the resolved suite. Exits with 0 where there is no error, 1 for
    errors in records or a run, 2 for an invalid suite.

    No code is run that they name: plugins of theirs are loaded with --trust alone, and
    what cannot be judged without them is said.
    """
    validation = run.validate(paths, plugins, trust=trust)
    answer(PRINTED["json" if as_json else style](validation))
    return validation.exit_code


def _text(validation: run.Validation) -> str:
    lines = [
        str(problem)
        if problem.severity == "error"
        else f"{problem.severity}: {problem}"
        for problem in validation.problems
    ]
    return "\n".join([*lines, _summary(validation)])


def _json(validation: run.Validation) -> str:
    document = {
        "valid": not validation.errors,
        "checked": validation.checked,
        "findings": [problem.as_json() for problem in validation.problems],
    }
    return json.dumps(document, indent=1)


def _github(validation: run.Validation) -> str:
    annotations = [problem.as_annotation() for problem in validation.problems]
    return "\n".join([*annotations, _summary(validation)])


def _summary(validation: run.Validation) -> str:
    checked, count = ", ".join(validation.checked), len(validation.problems)
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
