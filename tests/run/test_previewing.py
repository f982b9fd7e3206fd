"""Which units of a plan would run, and why, on records as runs write them."""

from pathlib import Path

import pytest

from harness.base.errors import CellError
from harness.base.signals import StopSignals
from harness.base.store import Store
from harness.data.corpora import Corpora
from harness.records.files import write_record
from harness.running.assembly import Outcome, assemble, error_info
from harness.running.context import RunContext
from harness.running.folder import RunFolder, write_samples
from harness.running.previewing import preview, summary
from harness.suite import identify, load_experiment, make_plan


@pytest.fixture
def plan(toy_suite, tmp_path):
    """Return a function that plans the toy suite with overrides."""

    def make(*overrides):
        experiment = load_experiment(toy_suite, overrides=overrides)
        return make_plan(identify(experiment, tmp_path / "store"))

    return make


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def write(plan, unit, folder, error=None):
    """Write the record of a unit, complete or failed."""
    store = Store(folder.root.parent / "store")
    suite = plan.experiment.suite
    run = RunContext(
        plan=plan,
        folder=folder,
        store=store,
        corpora=Corpora(suite.corpora, store),
        device="cpu",
        stop=StopSignals(),
        suite_sha256="0" * 64,
    )
    kind = "cell" if unit in plan.cells else "variant"
    path = folder.record_path(kind, unit.id)
    path.parent.mkdir(parents=True)
    outcome = Outcome(error=error_info(error) if error else None)
    if error is None:
        outcome.samples = write_samples(path.parent, [])
    write_record(path, assemble(run, unit, outcome, "2026-01-01", "2026-01-02"))
    return path


def states(units):
    return {unit.id: (unit.state, unit.runs) for unit in units}


def test_without_records_all_is_new(plan, folder):
    made = plan()
    found = preview(made, folder)
    assert [unit.id for unit in found] == [
        unit.id for unit in (*made.variants, *made.cells)
    ]
    assert {(unit.state, unit.runs, unit.reason) for unit in found} == {
        ("new", True, "")
    }


def test_only_what_is_complete_does_not_run(plan, folder):
    made = plan()
    complete, failed, invalid, torn = made.cells[:4]
    write(made, complete, folder)
    write(made, failed, folder, CellError("no such luck"))
    path = write(made, invalid, folder)
    (path.parent / "samples.jsonl").unlink()
    write(made, torn, folder).write_text('{"kind": ')
    found = states(preview(made, folder))
    assert found.pop(complete.id) == ("complete", False)
    assert found.pop(failed.id) == ("failed before", True)
    assert found.pop(invalid.id) == ("invalid record", True)
    assert found.pop(torn.id) == ("invalid record", True)
    assert set(found.values()) == {("new", True)}
    assert summary(preview(made, folder)) == (
        "4 variants, 8 cells: 1 complete, 1 failed before, 8 new, 2 invalid record"
    )


def test_one_variant_and_one_cell_are_counted_in_the_singular(plan, folder):
    found = preview(plan(), folder)
    one = {unit.kind: unit for unit in found}.values()
    assert summary([*one]) == "1 variant, 1 cell: 2 new"


def test_the_reason_of_a_failure_is_said(plan, folder):
    made = plan()
    write(made, made.variants[0], folder, CellError("no such luck"))
    assert preview(made, folder)[0].reason == "no such luck"


def test_a_new_unit_says_what_changed_since_its_last_record(plan, folder):
    before = plan()
    write(before, before.variants[0], folder)
    write(before, before.cells[0], folder)
    after = preview(plan("recovery.tokens=20000", "attacks.flip.stop=0.5"), folder)
    reasons = {unit.kind: unit.reason for unit in after if unit.reason}
    assert reasons == {
        "variant": "changed recovery.tokens (10000 -> 20000) "
        f"since {before.variants[0].id}",
        "cell": "changed recovery.tokens (10000 -> 20000), "
        f"options.stop (none -> 0.5) since {before.cells[0].id}",
    }


def test_many_changes_are_counted(plan, folder):
    before = plan()
    write(before, before.variants[0], folder)
    sections = ("context", "batch_tokens", "learning_rate", "weight_decay")
    after = preview(plan(*(f"recovery.{name}=1" for name in sections)), folder)
    assert " and 1 more since " in after[0].reason


def test_what_is_not_identified_is_blocked(toy_suite, folder):
    overrides = [f"models.toy-1.5b.path={Path.cwd() / 'gone'}"]
    made = make_plan(load_experiment(toy_suite, overrides=overrides))
    found = preview(made, folder)
    assert {(unit.state, unit.runs) for unit in found} == {("blocked", False)}
    assert found[0].id == "toy-1.5b.baseline.s1"


def test_a_folder_is_listed_once_for_all_that_is_missing(make_run, monkeypatch):
    listed = []
    records = RunFolder.records

    def counted(folder, kind):
        listed.append(kind)
        return records(folder, kind)

    monkeypatch.setattr(RunFolder, "records", counted)
    folder = RunFolder(make_run(absent=("random", "s2")))
    plan = make_plan(load_experiment(folder.suite_file))
    states = [unit.state for unit in preview(plan, folder)]
    assert states.count("new") > 2
    assert sorted(listed) == ["cell", "variant"]
