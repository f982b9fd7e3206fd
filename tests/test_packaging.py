"""What is installed, and what is not."""

import ast
import configparser
import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"harness": ROOT / "harness", "harness_plugins": ROOT / "plugins"}


def setup_cfg(section: str, key: str) -> list[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config[section][key].split()


def test_every_package_of_the_tree_is_listed():
    found = {
        ".".join([name, *path.parent.relative_to(root).parts])
        for name, root in SOURCES.items()
        for path in root.rglob("*.py")
    }
    assert set(setup_cfg("options", "packages")) >= found


COME_ALONG = ("triton", "pydantic-core")
"""Parts of torch (where there is a GPU to compile for) and of pydantic."""


def test_every_library_that_is_imported_is_required():
    wanted = [
        *setup_cfg("options", "install_requires"),
        *setup_cfg("options.extras_require", "textattack"),
        *COME_ALONG,
    ]
    names = {re.split("[<>=]", line)[0] for line in wanted}
    providers = importlib.metadata.packages_distributions()
    for root in SOURCES.values():
        for path in root.rglob("*.py"):
            for module in _imported(path) - {"harness", "harness_plugins"}:
                providing = {_normal(name) for name in providers.get(module, [module])}
                assert providing & {_normal(name) for name in names}, (path, module)


def _imported(path: Path) -> set[str]:
    """Return the top-level names of other distributions that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found - sys.stdlib_module_names


def _normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def test_every_library_that_is_required_is_imported_or_has_a_reason():
    sources = [*SOURCES.values(), ROOT / "tests"]
    files = [path for root in sources for path in root.rglob("*.py")]
    imported = {module for path in files for module in _imported(path)}
    providers = importlib.metadata.packages_distributions()
    used = {_normal(name) for x in imported for name in providers.get(x, [x])}
    lines = (ROOT / "setup.cfg").read_text().splitlines()
    wanted = re.compile(r"    ([A-Za-z][\w.-]*)(>=.*)?")
    unexplained = {
        _normal(found[1])
        for above, line in pairwise(lines)
        if (found := wanted.fullmatch(line)) and not above.lstrip().startswith("#")
    }
    declared = {_normal(re.split("[<>=]", x)[0]) for x in _all_requirements()}
    assert declared & unexplained <= used


def _all_requirements() -> list[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"].values()
    texts = [config["options"]["install_requires"], *extras]
    lines = [line for text in texts for line in text.split("\n") if line]
    return [line for line in lines if not line.startswith("#")]


def test_constraints_pin_what_is_required():
    pinned = {
        _normal(line.partition("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    wanted = setup_cfg("options", "install_requires")
    assert {_normal(re.split("[<>=]", line)[0]) for line in wanted} <= pinned


@pytest.mark.slow
def test_the_wheel_holds_code_schemas_and_templates_but_no_tests(tmp_path):
    source = tmp_path / "source"
    keep_out = shutil.ignore_patterns(".*", "runs", "build", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=keep_out)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    flags = ["--no-build-isolation", "--wheel-dir", tmp_path]
    subprocess.run([*pip, *flags, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if "dist-info" not in top} == set(SOURCES)
    for name, root in SOURCES.items():
        for file in root.rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert f"{name}/{file.relative_to(root).as_posix()}" in names
