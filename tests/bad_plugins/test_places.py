"""Exceptions of metrics, constraints and models: file and line of their code, the log.

Those of attacks are in the other tests of this folder.
"""

import json
from pathlib import Path

import pytest

from tests.tiny_inputs import write_inputs

SUITE = """
name: places
models:
  tiny: {adapter: pythia, path: model}
  worse: {adapter: bad_model, path: model}
arms:
  baseline: {}
  wrong: {constraint: bad_constraint}
corpora:
  test: {path: text.jsonl}
metrics:
  bad_metric: {}
diagnostics: none
seeds: [7]
"""
PLUGINS = '''
"""What raises where a run calls it."""

from harness import hookimpl
from harness.api import Metric
from harness_plugins.constraints.softplus import Softplus
from harness_plugins.models.pythia import Pythia


class BadMetric(Metric):
    """Raises as it measures."""

    name = "bad_metric"

    def measure(self, subject, context):
        yield {"x": 1}
        raise ValueError("no metric")

    def summarise(self, rows):
        return {}


class BadConstraint(Softplus):
    """Raises as it is put on."""

    name = "bad_constraint"

    def install(self, adapter, model, context):
        raise ValueError("no constraint")


class BadModel(Pythia):
    """Raises as it is loaded."""

    name = "bad_model"

    def load(self, store_root):
        raise ValueError("no model")


@hookimpl
def register_metrics():
    return [BadMetric]


@hookimpl
def register_constraints():
    return [BadConstraint]


@hookimpl
def register_models():
    return [BadModel]
'''


def test_what_plugins_raise_in_a_run_is_said_with_its_place_and_the_log(cli, tmp_path):
    write_inputs(tmp_path, 2)
    plugin, out = tmp_path / "bad.py", tmp_path / "runs" / "places"
    plugin.write_text(PLUGINS)
    suite = tmp_path / "places.yaml"
    suite.write_text(SUITE)
    ended = cli("run", suite, "--plugins", plugin, "--out", out)
    assert ended.code == 1
    lines = PLUGINS.splitlines()
    for stem, what in (
        ("tiny.baseline", "no metric"),
        ("tiny.wrong", "no constraint"),
        ("worse.baseline", "no model"),
    ):
        (folder,) = out.glob(f"variants/{stem}.s7-*")
        number = 1 + next(n for n, line in enumerate(lines) if what in line)
        where = f"{plugin}, line {number}, in "
        error = json.loads((folder / "record.json").read_text())["error"]
        assert (error["message"], error["place"][: len(where)]) == (what, where)
        said = ended.err[ended.err.index(f"{folder.name}\n") :].splitlines()
        assert said[1].startswith(f"  FAILED: {what} (at {where}")
        assert said[2] == f"  its log: {folder / 'log.txt'}"
        assert what in (folder / "log.txt").read_text()


@pytest.mark.parametrize("method", ["shape", "missing"])
def test_what_a_model_raises_in_a_plan_is_said_with_file_and_line(
    cli, tmp_path, method
):
    write_inputs(tmp_path, 2)
    plugin = tmp_path / "bad.py"
    plugin.write_text(
        PLUGINS.replace("def load(self, store_root)", f"def {method}(self)")
    )
    suite = tmp_path / "places.yaml"
    suite.write_text(SUITE)
    ended = cli("plan", suite, "--plugins", plugin)
    assert ended.code == 2
    number = 1 + next(
        n for n, line in enumerate(PLUGINS.splitlines()) if "no model" in line
    )
    last = f"error: {plugin}:{number}: the plugin raised ValueError: no model"
    assert ended.err.splitlines()[-1] == last
    assert not Path("runs").exists()
