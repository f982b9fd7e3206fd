"""The state of a run, and what changed since its records were made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.base.errors import UsageError
from harness.records.files import read_record
from harness.running.folder import RunFolder
from harness.running.surveying import changes, survey


def test_every_planned_unit_is_counted(make_run: Callable[..., Path]) -> None:
    run = make_run(
        seeds=[1], failed=("monotone.s1.hotflip",), absent=("monotone.s1.random",)
    )
    (samples,) = run.glob("cells/*baseline*random*/samples.jsonl")
    samples.unlink()
    found = survey(run)
    assert found.counts == {"complete": 3, "failed": 1, "missing": 1, "invalid": 1}
    assert [unit.kind for unit in found.units] == ["variant"] * 2 + ["cell"] * 4


def test_folders_outside_the_plan_are_strays(make_run: Callable[..., Path]) -> None:
    run = make_run(seeds=[1])
    (folder,) = run.glob("cells/*baseline*hotflip*")
    stray = folder.rename(folder.with_name("old"))
    assert survey(run).strays == [stray]


def test_a_folder_without_a_suite_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no run folder"):
        survey(tmp_path)


def test_other_plugins_and_other_code_are_told(make_run: Callable[..., Path]) -> None:
    run = make_run(seeds=[1])
    (path,) = run.glob("cells/*baseline*hotflip*/record.json")
    then = read_record(path).provenance
    registry = survey(run).plan.experiment.registry
    old = {"version": "0.0.1"}, {"sha256": "0" * 64}, {"name": "gone"}
    plugins = [then.plugins[2].model_copy(update=update) for update in old]
    told = changes(
        then.model_copy(update={"plugins": plugins, "commit": "f" * 40}), registry
    )
    assert "attack hotflip: version 0.0.1 then" in told[0]
    assert told[1] == "attack hotflip: its source changed"
    assert told[2] == "attack gone is not installed"
    assert told[3].startswith("code: commit ffffffff then") or not then.commit


def test_a_state_says_why(make_run: Callable[..., Path]) -> None:
    run = make_run(seeds=[1], failed=("monotone.s1.hotflip",))
    folder = RunFolder(run)
    units = {unit.id: unit.state for unit in survey(run).units}
    (failed,) = [state for state in units.values() if state.status == "failed"]
    assert failed.reason == "out of paper"
    assert set(units) == {path.parent.name for path in folder.records("variant")} | {
        path.parent.name for path in folder.records("cell")
    }
