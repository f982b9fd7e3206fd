"""Units that fail, and what is left of them."""

import gc
import weakref
from types import SimpleNamespace

from harness.base import CellError
from harness.run import unit
from harness.run.folder import RunFolder
from harness.suite import VariantPlan


def test_a_failure_does_not_keep_what_was_loaded(tmp_path, monkeypatch):
    """Otherwise the next unit would load its model beside that of this one."""
    alive = []

    class Model:
        pass

    def fail(work):
        model = Model()
        alive.append(weakref.ref(model))
        raise CellError("out of memory")

    monkeypatch.setattr(unit.logger, "disabled", True)  # pytest keeps what is logged
    monkeypatch.setattr(unit, "run_variant", fail)
    monkeypatch.setattr(unit, "write_record", lambda path, record: None)
    monkeypatch.setattr(unit, "assemble", lambda run, plan, outcome, *_: Found(outcome))
    hook = SimpleNamespace(
        variant_started=lambda **_: None, variant_finished=lambda **_: None
    )
    run = SimpleNamespace(device="cpu", folder=RunFolder(tmp_path), hook=hook)
    gc.disable()
    try:
        plan = VariantPlan("v1", "tiny", "baseline", 1, {}, "key")
        found = unit.Runner(run, {}).run(plan)
        assert found.outcome.error.message == "out of memory"
        assert alive[0]() is None
    finally:
        gc.enable()


class Found:
    """Stands for a record."""

    status = "failed"

    def __init__(self, outcome):
        self.outcome = outcome

    def model_dump(self, **_):
        return {}
