"""``harness describe``: a plugin, its options, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from textwrap import fill, indent

import click

from harness.api import (
    KINDS,
    Description,
    OptionDescription,
    PluginInfo,
    Registry,
    describe,
    load_registry,
)
from harness.base import UsageError, unknown_name
from harness.cli import options
from harness.cli.pages import page
from harness.cli.printing import answer

WIDTH = 80
_filled = partial(fill, break_long_words=False, break_on_hyphens=False)  # of addresses


@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice([*KINDS]), help="Where names coincide.")
@options.plugins
@options.formats(
    "text",
    "json",
    "markdown",
    about="How it is printed; `markdown` is a page of documentation.",
)
def command(name: str, kind: str | None, plugins: tuple[Path, ...], style: str) -> None:
    """Describe a plugin: what it does, its options, cost and source.

    NAME is the plugin's name, as `harness list` prints it.
    """
    found = describe(_find(load_registry(plugins), name, kind))
    if style == "json":
        answer(json.dumps(found.as_json(), indent=1))
    elif style == "markdown":
        answer(page(found), end="")
    else:
        answer("\n".join(_lines(found)))


def _find(registry: Registry, name: str, kind: str | None) -> PluginInfo:
    candidates = registry.all(kind)
    found = [info for info in candidates if info.name == name]
    if not found:
        known = {info.name for info in candidates}
        raise UsageError(unknown_name(kind or "plugin", name, known))
    if len(found) > 1:
        kinds = ", ".join(info.kind for info in found)
        raise UsageError(f"{name!r} is a name in several kinds ({kinds}): say --kind")
    return found[0]


def _lines(found: Description) -> Iterator[str]:
    yield f"{found.kind} {found.name}: {found.summary}"
    if found.text:
        yield f"\n{found.text}"
    yield "\noptions:" if found.options else "\nno options"
    for option in found.options:
        yield from _option_lines(option)
    if found.cost:
        yield f"\n{_filled(f'cost: {found.cost}', WIDTH)}"
    for paper in found.papers:
        address = f" ({paper.url})" if paper.url else ""
        yield f"\n{_filled(f'from: {paper.who}, {paper.title}{address}', WIDTH)}"
    yield f"\nversion {found.version}, from {found.source}"


def _option_lines(option: OptionDescription) -> Iterator[str]:
    if option.required:
        yield f"  {option.name}  ({option.type}, required)"
    else:
        yield f"  {option.name} = {json.dumps(option.default)}  ({option.type})"
    if option.meaning:
        yield indent(_filled(option.meaning, WIDTH - 6), "      ")
