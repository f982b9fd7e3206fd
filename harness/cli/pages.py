"""Pages of documentation, one for each plugin, from what it says of itself.

``python -m harness.cli.pages FOLDER`` writes those of all plugins that ship, and a list
of them as ``README.md``.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from ruamel.yaml import YAML

from harness.api import Description, OptionDescription, Paper, describe, load_registry
from harness.base import write_atomic


def page(found: Description) -> str:
    """Return the page of a plugin, in Markdown: all lines, the last one ended."""
    return "\n\n".join(_parts(found)) + "\n"


def contents(found: Sequence[Description], folder: str = "") -> str:
    """Return a table of plugins for each kind, in Markdown; pages are in `folder`."""
    parts = []
    for kind, group in groupby(found, key=lambda one: one.kind):
        rows = [
            [
                f"[`{one.name}`]({folder}{file_of(one)})",
                _cell(one.summary.rstrip(".")),
                ", ".join(map(_cited, one.papers)),
            ]
            for one in group
        ]
        parts.append(_table(kind, ["what it does", "from"], rows))
    return "\n\n".join(parts)


def file_of(found: Description) -> str:
    """Return the name of a plugin's page."""
    return f"{found.kind}-{found.name}.md"


def write(folder: Path) -> None:
    """Write the pages of all plugins that are installed, and the list of them."""
    found = [describe(info) for info in load_registry().all()]
    for one in found:
        write_atomic(folder / file_of(one), page(one))
    write_atomic(folder / "README.md", f"{HEAD}\n\n{contents(found)}\n")
    front = folder.parents[1] / "README.md"
    if front.is_file():
        write_atomic(front, with_tables(front.read_text(encoding="utf-8"), found))


def with_tables(text: str, found: Sequence[Description]) -> str:
    """Return the project's front page with the tables of plugins that there are."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    return f"{before}{start}\n{contents(found, 'docs/plugins/')}\n{end}{after}"


START = "<!-- `make docs` writes these tables. -->"
END = "<!-- End of the tables. -->"


HEAD = """# Plugins

The plugins that ship. `make docs` writes these pages from the code; `harness describe
NAME --format markdown` prints that of any plugin, also of
[one that you wrote](../plugins.md)."""


def _parts(found: Description) -> Iterator[str]:
    yield f"# {found.kind} `{found.name}`"
    yield found.summary
    if found.text:
        yield found.text.replace("``", "`")
    yield f"```yaml\n{_yaml(found)}```"
    yield "## Options"
    if found.options:
        rows = [
            [f"`{x.name}`", _cell(x.type), _default(x), _cell(x.meaning)]
            for x in found.options
        ]
        yield _table("option", ["type", "default", "meaning"], rows)
    else:
        yield "None."
    if found.cost:
        yield f"## Cost\n\n{found.cost}"
    yield "## Source"
    yield "\n".join(f"* {_reference(x)}" for x in found.papers) or "This project's own."


def _yaml(found: Description) -> str:
    stream = io.StringIO()
    YAML(pure=True).dump(found.example, stream)
    return stream.getvalue()


def _default(option: OptionDescription) -> str:
    if option.required:
        return "required"
    return "--" if option.default is None else f"`{json.dumps(option.default)}`"


def _cited(paper: Paper) -> str:
    return f"[{paper.who}]({paper.url})" if paper.url else paper.who


def _reference(paper: Paper) -> str:
    return (
        f"{paper.who}, {f'[{paper.title}]({paper.url})' if paper.url else paper.title}"
    )


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def _table(first: str, others: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with cells as narrow as they are, so that few lines change."""
    lines = [[first, *others], ["---"] * (1 + len(others)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
