"""A room's face, its `__init__.pyi`, is what other rooms use of it, and no more."""

import ast
import functools
import importlib
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("faces")  # all files are read once
ROOT = Path(__file__).parents[1]
FACES = sorted((ROOT / "harness").glob("*/__init__.pyi"))
PYTHON = [
    path
    for folder in ("harness", "plugins", "benchmarks", "suites")
    for path in (ROOT / folder).rglob("*.py")
]
PROSE = [
    ROOT / "README.md",
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "harness" / "cli" / "templates").glob("*.tmpl"),
]


@pytest.mark.parametrize("face", FACES, ids=lambda path: path.parent.name)
def test_a_face_has_what_others_use_and_no_more(face):
    room = importlib.import_module(f"harness.{face.parent.name}")
    names = {
        alias.name for node in ast.parse(face.read_text()).body for alias in node.names
    }
    assert all(hasattr(room, name) for name in names)
    # `from harness.room import name` could mean either.
    assert not names & {path.stem for path in face.parent.iterdir()}
    used = _names_in_code(face.parent) | _names_in_prose(face.parent.name)
    assert names - used == set()


def _names_in_code(room: Path) -> set[str]:
    """Return what other rooms import from a room, and what any asks it for late."""
    found = set()
    for path in [*PYTHON, ROOT / "harness" / "__init__.pyi"]:
        aliases, asked = _read(path)
        if room not in path.parents:
            found |= {
                name for module, name, _ in aliases if module == f"harness.{room.name}"
            }
        late = {
            own
            for module, name, own in aliases
            if (module, name) == ("harness", room.name)
        }
        found |= {attribute for name, attribute in asked if name in late}
    return found


@functools.cache
def _read(path: Path) -> tuple[list[tuple[str, str, str]], set[tuple[str, str]]]:
    """Return a file's imports: from where, of what, as what; and names' attributes."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    aliases = [
        (
            f"harness.{node.module}" if node.level else str(node.module),
            alias.name,
            alias.asname or alias.name,
        )
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    attributes = (node for node in nodes if isinstance(node, ast.Attribute))
    asked = {
        (node.value.id, node.attr)
        for node in attributes
        if isinstance(node.value, ast.Name)
    }
    return aliases, asked


def _names_in_prose(room: str) -> set[str]:
    """Return what the pages and the templates for new plugins import from a room."""
    statement = re.compile(rf"from harness\.{room} import (\([^)]*\)|.*)")
    return {
        name
        for path in PROSE
        for imported in statement.findall(path.read_text())
        for name in re.findall(r"\w+", imported)
    }
