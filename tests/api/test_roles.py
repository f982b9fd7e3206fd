"""The core asks plugins what they are; it knows none of them by name."""

import ast
from pathlib import Path

import pytest

import harness
from harness.api import load_registry
from harness.base import PluginError

ROOT = Path(harness.__file__).parent
OTHER_MEANINGS = {
    "base/isolation.py": {"lm_eval"},  # the library
    "models/ffn/parametrizations.py": {"softplus"},  # the function
    "models/families.py": {"t5"},  # transformers' model_type, as in the next two
    "subject/seq2seq.py": {"t5"},
    "testing.py": {"t5"},
    "suite/additions.py": {"planted"},  # how the labels of such arms end
    "records/record.py": {"transfer", "worst_case"},  # diagnostics, as in the next ones
    "verdicts/judging.py": {"worst_case"},
    "verdicts/questions/all.py": {"worst_case"},
    "verdicts/questions/transfers.py": {"transfer"},
    "verdicts/rule.py": {"transfer", "worst_case"},
    "report/tables/transfer.py": {"transfer"},  # the table's key
    "report/content.py": {"perplexity"},  # a unit, as in the next ones
    "report/formats/numbers.py": {"perplexity"},
    "report/tables/main.py": {"perplexity"},
    "report/tables/making.py": {"perplexity"},
    "report/tables/metrics.py": {"perplexity"},
}
"""Strings of the core that are names of shipped plugins, and mean something else."""


def test_the_core_names_no_plugin():
    names = {info.name for info in load_registry().all()} - {"none"}  # said everywhere
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text()))
        strings = {n.value for n in nodes if isinstance(n, ast.Constant)}
        if named := names & {x for x in strings if isinstance(x, str)}:
            found[path.relative_to(ROOT).as_posix()] = named
    for file, named in found.items():
        assert named <= OTHER_MEANINGS.get(file, set()), file


def test_plugins_are_found_by_what_they_declare():
    registry = load_registry()
    assert [x.name for x in registry.all("attack", shows="search")] == ["random"]
    assert [x.name for x in registry.all("attack", replays=True)] == [
        "transfer",
        "worst_case",
    ]
    assert registry.only("constraint", role="match").name == "noise"
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
    message = "one constraint has to declare role = 'match'; it is: noise, second"
    with pytest.raises(PluginError, match=message):
        load_registry([path]).only("constraint", role="match")
    with pytest.raises(PluginError, match="it is: none"):
        load_registry().only("constraint", role="mach")
