"""A room's face, its `__init__.pyi`, is what other rooms use of it, and no more."""

import ast
import importlib
import re
from pathlib import Path

import pytest

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
        nodes = list(ast.walk(ast.parse(path.read_text())))
        imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        aliases = [
            (
                f"harness.{node.module}" if node.level else node.module,
                alias.name,
                alias.asname or alias.name,
            )
            for node in imports
            for alias in node.names
        ]
        if room not in path.parents:
            found |= {
                name for module, name, _ in aliases if module == f"harness.{room.name}"
            }
        late = {
            own
            for module, name, own in aliases
            if (module, name) == ("harness", room.name)
        }
        found |= {
            node.attr
            for node in nodes
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in late
        }
    return found


def _names_in_prose(room: str) -> set[str]:
    """Return what the pages and the templates for new plugins import from a room."""
    statement = re.compile(rf"from harness\.{room} import (\([^)]*\)|.*)")
    return {
        name
        for path in PROSE
        for imported in statement.findall(path.read_text())
        for name in re.findall(r"\w+", imported)
    }
