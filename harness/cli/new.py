"""``harness new``: a working plugin and its test, to start from."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
import shutil
import sys
from importlib import resources
from pathlib import Path
from string import Template

import click

from harness import suite
from harness.api import KINDS, load_registry
from harness.base import Store, UsageError, default_store_root, write_atomic
from harness.cli import options
from harness.cli.printing import answer, say

EXAMPLES = 100
"""Test examples of a suite, where there are as many texts."""


@click.command()
@click.argument("kind", type=click.Choice([*KINDS, "suite"]))
@click.argument("name")
@click.argument("texts", required=False, type=click.Path(path_type=Path))
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Where to write; by default the current folder.",
)
@options.text_fields
def command(
    kind: str, name: str, texts: Path | None, folder: Path, fields: dict[str, str]
) -> None:
    """Write a working plugin and its test, or a suite, to start from.

    NAME is both what suites will call the plugin and the name of its file. `harness new
    suite MODEL TEXTS` writes a commented suite for a model's folder and a file of
    texts, sizes chosen to fit them; the options on fields are for such a file.
    """
    if kind == "suite":
        _write_suite(name, texts, folder, fields)
        return
    for more in (texts, *fields.values()):
        if more is not None:
            raise UsageError(
                f"harness new {kind} takes a name and no more: {str(more)!r}"
            )
    _check_name(kind, name)
    files = {
        folder / f"{name}.py": _filled(f"{kind}.tmpl", name),
        folder / f"test_{name}.py": _filled(f"test_{kind}.tmpl", name),
    }
    for path in files:
        if path.exists():
            raise UsageError(f"{path} is already there; choose another name or --dir")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        write_atomic(path, text)
        answer(f"wrote {path}")
    plugin, test = files
    described = "describe", name, "--plugins", str(plugin)
    answer(f"try it:  {_pytest(test)}")
    answer(f"         {shlex.join([*_program('harness'), *described])}")


def _pytest(test: Path) -> str:
    """Return a command that runs a test here, and that installs pytest if need be."""
    run = shlex.join([*_program("pytest"), str(test)])
    if importlib.util.find_spec("pytest") is not None:
        return run
    return f"{shlex.join([_python(), '-m', 'pip', 'install', 'pytest'])} && {run}"


def _program(name: str) -> list[str]:
    """Return how a program of this environment is called from the current folder.

    By its name alone only where that is found first, and is this environment's.
    """
    own = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if found is not None and own.exists() and Path(found).samefile(own):
        return [name]
    return [_python(), "-m", name]


def _python() -> str:
    """Return the path of this Python, relative where it is below the current folder."""
    python = Path(sys.executable)
    here = Path.cwd()
    return str(python.relative_to(here) if python.is_relative_to(here) else python)


def _write_suite(
    model: str, texts: Path | None, folder: Path, fields: dict[str, str]
) -> None:
    """Write a suite that compares a model with itself under a constraint."""
    if texts is None:
        raise UsageError("a suite takes a file of texts: harness new suite MODEL TEXTS")
    store = Store(default_store_root(folder / "run"))
    label = suite.label_of(model)
    path = folder / f"{label}.yaml"
    if path.exists():
        raise UsageError(f"{path} is already there; choose another --dir")
    draft = suite.draft_suite(
        load_registry(),
        model,
        texts,
        examples=EXAMPLES,
        store=store,
        kept=folder / f"{label}.distinct.jsonl",
        fields=fields,
        spare=True,
    )
    write_atomic(path, draft.text("compare", file=path))
    answer(f"wrote {path}")
    for note in draft.notes:
        say(f"note: {note}")
    smoke = "run", str(path), "--profile", "smoke"
    for told, words in (
        ("try it:", ("validate", str(path))),
        ("", ("plan", str(path))),
        ("", smoke),
    ):
        answer(f"{told:8} {shlex.join([*_program('harness'), *words])}")


def _check_name(kind: str, name: str) -> None:
    if keyword.iskeyword(name):
        raise UsageError(
            f"{name!r} cannot name a Python file: Python keeps it to itself"
        )
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UsageError(
            f"{name!r} cannot name a Python file: use lower-case letters, digits and _"
        )
    if name.startswith(("test_", "conftest")):
        raise UsageError(f"{name!r} would be taken for a test and not for a plugin")
    for info in load_registry().all(kind):
        if info.name == name:
            raise UsageError(f"the {kind} {name!r} is there already: {info.source}")


def _filled(template: str, name: str) -> str:
    text = (resources.files("harness.cli") / "templates" / template).read_text()
    class_name = "".join(part.capitalize() for part in name.split("_"))
    return Template(text).substitute(name=name, class_name=class_name)
