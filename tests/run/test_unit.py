"""Units that fail, and what is left of them."""

import gc
import weakref
from types import SimpleNamespace

import pytest

from harness.base import CellError, StopSignals, take
from harness.running import unit
from harness.running.folder import RunFolder
from harness.suite import VariantPlan

PLAN = VariantPlan("v1", "tiny", "baseline", 1, {}, "key")


@pytest.mark.parametrize(("status", "restarts"), [("complete", 0), ("missing", 1)])
def test_only_an_unfinished_unit_goes_on_from_its_journal(
    tmp_path, monkeypatch, status, restarts
):
    """A kill can leave the journal beside the record that it led to."""
    seen, lease = [], take(tmp_path / "name")
    runner = stubbed(tmp_path, monkeypatch, lambda work: seen.append(work.journal))
    monkeypatch.setattr(RunFolder, "state", lambda *_: SimpleNamespace(status=status))
    runner.run(PLAN, lease)
    assert seen[-1].restarts == 0
    runner.run(PLAN, lease)
    assert seen[-1].restarts == restarts


def test_a_failure_does_not_keep_what_was_loaded(tmp_path, monkeypatch):
    """Otherwise the next unit would load its model beside that of this one."""
    alive = []

    class Model:
        pass

    def fail(work):
        model = Model()
        alive.append(weakref.ref(model))
        raise CellError("out of memory")

    runner = stubbed(tmp_path, monkeypatch, fail)
    gc.disable()
    try:
        found = runner.run(PLAN, take(tmp_path / "name"))
        assert found.outcome.error.message == "out of memory"
        assert alive[0]() is None
    finally:
        gc.enable()


class Found:
    """Stands for a record."""

    status, samples = "failed", None

    def __init__(self, outcome):
        self.outcome = outcome

    def model_dump(self, **_):
        return {}


def stubbed(tmp_path, monkeypatch, run_variant):
    """Return a runner whose variants do what is given, and whose records say so."""
    monkeypatch.setattr(unit.logger, "disabled", True)  # pytest keeps what is logged
    monkeypatch.setattr(unit, "run_variant", run_variant)
    monkeypatch.setattr(unit, "write_record", lambda path, record: path.touch())
    monkeypatch.setattr(unit, "assemble", lambda run, plan, outcome, *_: Found(outcome))
    hook = SimpleNamespace(
        variant_started=lambda **_: None, variant_finished=lambda **_: None
    )
    folder, stop = RunFolder(tmp_path), StopSignals()
    run = SimpleNamespace(device="cpu", folder=folder, hook=hook, stop=stop)
    return unit.Runner(run, {})
