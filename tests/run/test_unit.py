"""Units that fail, and what is left of them."""

import contextlib
import errno
import gc
import os
import signal
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.base import CellError, LeaseLost, Stopped, StopSignals, take
from harness.base.errors import DiskError
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


def raising(error):
    """Return what raises an exception, as a plugin may or a disk."""

    def fail(work):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("out of ideas"), "out of ideas"),
        (SystemExit(0), "a plugin called sys.exit(0)"),
        (KeyboardInterrupt(), "a plugin raised KeyboardInterrupt, and nobody had"),
        (type("Unheard", (BaseException,), {})("nowhere"), "nowhere"),
        (MemoryError(), "MemoryError()"),
        (RecursionError("too deep"), "too deep"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_is_raised_is_the_failure_of_its_unit(
    tmp_path, monkeypatch, error, message
):
    runner = stubbed(tmp_path, monkeypatch, raising(error))
    try:
        found = runner.run(PLAN, take(tmp_path / "name"))
    except BaseException as escaped:  # noqa: BLE001 - or else it ends the tests
        pytest.fail(f"{escaped!r} escaped")
    assert found.outcome.error.message.startswith(message)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "no room", "/x"), DiskError),
        (ValueError(f"I/O error: {os.strerror(errno.EIO)}"), DiskError),
        (Stopped("stopped by SIGTERM"), Stopped),
        (LeaseLost(Path("name")), LeaseLost),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_unit_is_to_blame_for_leaves_no_record(
    tmp_path, monkeypatch, error, raised
):
    """The same command then goes on from here."""
    runner = stubbed(tmp_path, monkeypatch, raising(error))
    with pytest.raises(raised):
        runner.run(PLAN, take(tmp_path / "name"))
    folder = tmp_path / "variants" / "v1"
    assert not (folder / "record.json").exists()
    assert (folder / "samples.partial.jsonl").exists()


def test_a_signal_that_came_out_as_another_error_is_no_failure(tmp_path, monkeypatch):
    runner = stubbed(tmp_path, monkeypatch, raising(ValueError("interrupted call")))
    with contextlib.suppress(Stopped):
        runner._run.stop.receive(signal.SIGTERM)
    with pytest.raises(Stopped):
        runner._outcome(PLAN, SimpleNamespace(restarts=0), None)


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
