"""The core asks plugins what they are; it knows none of them by name."""

import ast
from pathlib import Path

import pytest

import harness
from harness.api import load_registry
from harness.base import PluginError

ROOT = Path(harness.__file__).parent
OTHER_MEANINGS = {
    "lm_eval": ("base/isolation.py",),  # the library
    "perplexity": (  # a unit
        "report/",
        "verdicts/measured.py",
        "results/as_lm_eval.py",
    ),
    "planted": ("report/tables/", "verdicts/reading.py"),  # a table, a field
    "softplus": ("models/ffn/",),  # the function
    "sweep": ("search/triggers.py",),  # a line of a trace
    "t5": ("models/", "subject/", "testing.py"),  # transformers' model_type
    "transfer": ("records/", "verdicts/", "report/tables/"),  # a diagnostic, a table
    "worst_case": ("records/", "verdicts/"),  # a diagnostic
}
"""Where the core says the name of a shipped plugin, and means something else."""


def test_the_core_names_no_plugin():
    names = {info.name for info in load_registry().all()} - {"none"}  # said everywhere
    for path in ROOT.rglob("*.py"):
        file = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and str(node.value) in names:
                places = OTHER_MEANINGS.get(node.value, ())
                assert file.startswith(places), f"{file}:{node.lineno}: {node.value}"


def test_plugins_are_found_by_what_they_declare():
    registry = load_registry()
    assert [x.name for x in registry.all("attack", shows="search")] == ["random"]
    assert [x.name for x in registry.all("attack", replays=True)] == [
        "transfer",
        "worst_case",
    ]
    matches = {
        again: registry.only("constraint", role="match", retraces=again).name
        for again in (True, False)
    }
    assert matches == {True: "earlier", False: "noise"}
    assert registry.only("constraint", role="plant").name == "planted"


SECOND = """
from harness import hookimpl
from harness.api import Constraint

class Second(Constraint):
    '''Matches losses too.'''

    name = "second"
    role = "match"

    def apply(self, adapter, model, seed):
        pass

@hookimpl
def register_constraints():
    return [Second]
"""


def test_a_choice_between_two_is_an_error_that_names_them(tmp_path):
    path = tmp_path / "second.py"
    path.write_text(SECOND)
    message = "role = 'match' and retraces = False; it is: noise, second"
    with pytest.raises(PluginError, match=message):
        load_registry([path]).only("constraint", role="match", retraces=False)
    with pytest.raises(PluginError, match="it is: none"):
        load_registry().only("constraint", role="mach")
