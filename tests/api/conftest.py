"""Plugins written to files."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Return a function that writes code to a file of a name, and returns the file."""

    def write(name: str, code: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text("from harness import hookimpl\n" + textwrap.dedent(code))
        return path

    return write
