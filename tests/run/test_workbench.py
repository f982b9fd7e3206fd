"""What is lent to plugins: once made, looked after however they end."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from harness.base import CellError, Stopped
from harness.running import workbench
from harness.running.folder import RunFolder
from harness.running.journal import Journal
from harness.running.workbench import Work, Workbench, lock
from harness.suite import VariantPlan
from harness.testing import tiny_examples, tiny_subject


def plan(seed):
    return VariantPlan(f"v{seed}", "tiny", "baseline", seed, {}, f"key{seed}")


@pytest.fixture
def made():
    """Return a list of what was loaded and cut."""
    return []


@pytest.fixture
def bench(made, monkeypatch):
    def load(run, plan):
        made.append(plan.id)
        return tiny_subject()

    def cut(*given, **options):
        made.append("examples")
        return tiny_examples()

    monkeypatch.setattr(workbench, "build_examples", cut)
    suite = SimpleNamespace(examples="section", limit=None)
    return Workbench(SimpleNamespace(suite=suite, corpora=None), load)


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal.jsonl", "unit", "cpu")


def damage(subject):
    next(subject.huggingface()[0].parameters()).data.add_(1)


def test_subjects_are_loaded_once_in_turn_and_examples_cut_once(bench, journal, made):
    for seed in (1, 1, 2, 2):
        subject = bench.subject(plan(seed), journal)
        bench.examples(plan(seed), subject)
        with bench.lent(plan(seed), "nobody"):
            subject.losses([np.arange(4)], np.arange(3))
    assert made == ["v1", "examples", "v2"]


def test_what_was_changed_is_dropped_and_nothing_else(bench, journal, made):
    subject = bench.subject(plan(1), journal)
    bench.examples(plan(1), subject)
    said = "the metric 'x' changed the weights of the subject, "
    with pytest.raises(CellError, match=said), bench.lent(plan(1), "the metric 'x'"):
        damage(subject)
    again = bench.subject(plan(1), journal)
    bench.examples(plan(1), again)
    assert again is not subject
    assert made == ["v1", "examples", "v1"]


@pytest.mark.parametrize("ending", [KeyboardInterrupt, Stopped])
def test_an_interruption_stays_one_but_what_is_void_is_undone(bench, journal, ending):
    subject, undone = bench.subject(plan(1), journal), []
    with pytest.raises(ending), bench.lent(plan(1), "x", lambda: undone.append(1)):
        damage(subject)
        raise ending
    assert undone == [1]


def test_an_exception_is_the_cause_of_what_is_said(bench, journal):
    subject = bench.subject(plan(1), journal)
    with pytest.raises(CellError) as told, bench.lent(plan(1), "x"):
        damage(subject)
        raise SystemExit(0)
    assert isinstance(told.value.__context__, SystemExit)


def test_what_a_plugin_was_stopped_at_is_loaded_again(bench, journal, made, tmp_path):
    """Its weights may be as before, and a hook of it half way in."""
    bench.subject(plan(1), journal)
    (tmp_path / "variants" / "v1").mkdir(parents=True)
    run = SimpleNamespace(folder=RunFolder(tmp_path))
    work = Work(run, bench, plan(1), journal, outcome=None, lease=None)
    told = "the attack 'x' took longer than its timeout of 0 s"
    with (
        pytest.raises(CellError, match=told),
        work.bounded("the attack 'x'", 0.05, None) as bounds,
        bounds.kept(),
    ):
        time.sleep(9)
    bench.subject(plan(1), journal)
    with work.bounded("the attack 'x'", 60, 4) as bounds, bounds.kept():
        bench.subject(plan(1), journal)
    assert made == ["v1", "v1"]


def test_writing_into_locked_examples_is_an_error():
    expected = [example.prompt_ids.tolist() for example in tiny_examples().search]
    locked = lock(tiny_examples())
    assert [example.prompt_ids.tolist() for example in locked.search] == expected
    for example in (*locked.test, *locked.search, *locked.validation):
        for ids in (example.prompt_ids, example.reference_ids):
            with pytest.raises(ValueError, match="read-only"):
                ids[0] = 1
    assert isinstance(locked.test, tuple)
