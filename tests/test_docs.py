"""The documentation says what is so."""

import importlib
import inspect
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from harness.api import AttackContext, hookspecs, load_registry
from harness.base import errors
from harness.cli import BUG, COMMANDS, INTERRUPTED
from harness.testing import tiny_examples, tiny_subject

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLUGINS = (ROOT / "docs" / "plugins.md").read_text()
HOOKS = {
    name: function
    for name, function in inspect.getmembers(hookspecs, inspect.isfunction)
    if hasattr(function, "harness_spec")
}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(
        rf"^ *```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE
    )


def test_the_smallest_attack_is_on_the_first_screen_and_works(tmp_path):
    code = blocks(PLUGINS, "python")[0]
    before = PLUGINS[: PLUGINS.index(code) + len(code)]
    assert before.count("\n") < 35
    path = tmp_path / "reverse.py"
    path.write_text(code)
    attack = load_registry([path]).create("attack", "reverse", {})
    examples = tiny_examples()
    results = attack.run(tiny_subject(), examples, AttackContext(seed_key="docs"))
    for example, result in zip(examples.test, results, strict=True):
        assert np.array_equal(result.prompt_ids, example.prompt_ids[::-1])


def test_what_broke_once_has_its_tests():
    page = (ROOT / "docs" / "security.md").read_text().split("## What broke once")[1]
    rows = re.findall(r"^\| .* \| (`.*`) \|$", page.split("\n## ")[0], re.MULTILINE)
    assert len(rows) > 50
    for row in rows:
        place, *others = row.split("`")[1::2]
        file, _, first = place.partition("::")
        written = (ROOT / "tests" / file).read_text()
        for name in (first, *others):
            assert f"\ndef {name}(" in written, (file, name)


def test_every_hook_is_documented_with_its_signature():
    documented = set(
        re.findall(r"^def .*$", PLUGINS.split("## Hooks")[1], re.MULTILINE)
    )
    assert documented == {_signature(name) for name in HOOKS}


@pytest.mark.parametrize("name", [name for name in HOOKS if "register" not in name])
def test_a_lifecycle_hook_is_documented_with_its_docstring(name):
    after = PLUGINS.split(_signature(name))[1]
    text = " ".join(after.split("```")[1].split())
    docstring = " ".join(inspect.getdoc(HOOKS[name]).replace("``", "`").split())
    assert text.startswith(docstring)


def _signature(name: str) -> str:
    signature = inspect.signature(HOOKS[name])
    arguments = [f"{p.name}: {p.annotation}" for p in signature.parameters.values()]
    return f"def {name}({', '.join(arguments)}) -> {signature.return_annotation}"


def test_the_table_of_exit_codes_is_complete():
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass)]
    codes = {c.exit_code for c in classes if hasattr(c, "exit_code")}
    assert sorted(map(int, rows)) == sorted({0, BUG, INTERRUPTED, *codes})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_in_the_text_exist(page):
    text = "".join(blocks(page.read_text(), "(?:console|sh|yaml)"))
    text = text.replace("\\\n", " ")
    for line in re.findall(r"\bharness ([a-z]+ .*)", text):
        name, *words = shlex.split(line, comments=True)
        assert name in COMMANDS, line
        command = importlib.import_module(f"harness.cli.{name}").command
        known = {opt for p in command.params for opt in p.opts} | {"--help"}
        assert {word for word in words if word.startswith("-")} <= known, line
