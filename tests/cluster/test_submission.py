"""What is submitted: the scripts, what they ask for, and nothing twice."""

import os
import sys
from pathlib import Path

import pytest

from harness.base import HarnessError, Store, UsageError
from harness.cli import main
from harness.cluster import cancel, queued_jobs, submit_run
from harness.cluster.queue import comment
from harness.running import RunFolder
from harness.suite import load_experiment, make_plan, resolve

HERE = Path(__file__).parent
CLUSTER = """
extends: base.yaml
name: toy
cluster:
  partition: gpu
  account: lab
  time: 4:00:00
  memory_gib: 24
  concurrent: 8
  setup: [module load cuda]
"""


@pytest.fixture
def suite(toy_suite):
    """Return a suite that says what its jobs ask for."""
    Path("toy.yaml").write_text(CLUSTER)
    return Path("toy.yaml")


@pytest.fixture
def submit(suite, tmp_path, fake_slurm):
    """Return a function that submits the suite to a folder with a space in its name."""
    folder = RunFolder(tmp_path / "runs" / "a run")
    store = Store(tmp_path / "store")

    def submit(*overrides, only=None):
        experiment = load_experiment(suite, overrides=overrides)
        plan = make_plan(resolve(experiment, store.root), only)
        return submit_run(plan, folder, store, lambda line: None)

    submit.folder = folder
    return submit


def script(fake_slurm, number, folder):
    """Return a script without what differs from machine to machine."""
    text = (fake_slurm / f"{number}.sh").read_text()
    own = comment(folder.root, "", "").rstrip("/")
    for found, name in (
        (str(folder.root), "/RUN FOLDER"),
        (own, "harness-RUN"),
        (sys.executable, "python"),
    ):
        text = text.replace(found, name)
    return text


@pytest.mark.parametrize(
    ("number", "name"), [(1, "variant"), (2, "cells"), (9, "report")]
)
def test_the_scripts_are_those_that_are_stored(submit, fake_slurm, number, name):
    submit()
    stored = HERE / "scripts" / f"{name}.sh"
    text = script(fake_slurm, number, submit.folder)
    if os.environ.get("HARNESS_STORE_SCRIPTS"):
        stored.write_text(text)
    assert text == stored.read_text()


def test_the_list_of_units_is_frozen_and_logs_go_to_their_folders(submit):
    done = submit()
    assert [(job.name, job.tasks, job.units, job.after) for job in done.jobs] == [
        ("toy-1.5b.baseline.s1", 1, 1, ()),
        ("toy-1.5b.baseline.s1.cells", 2, 2, ("1",)),
        ("toy-1.5b.baseline.s2", 1, 1, ()),
        ("toy-1.5b.baseline.s2.cells", 2, 2, ("3",)),
        ("toy-1.5b.monotone.s1", 1, 1, ()),
        ("toy-1.5b.monotone.s1.cells", 2, 2, ("5",)),
        ("toy-1.5b.monotone.s2", 1, 1, ()),
        ("toy-1.5b.monotone.s2.cells", 2, 2, ("7",)),
        ("report", 1, 0, ("2", "4", "6", "8")),
    ]
    listed = (done.place / "toy-1.5b.baseline.s1.cells.units").read_text().split()
    for number, unit in enumerate(listed):
        link = done.place / f"toy-1.5b.baseline.s1.cells.{number}.log"
        target = submit.folder.unit_dir("cell", unit) / "slurm.log"
        assert target.parent.is_dir()  # Slurm drops the log else
        assert link.resolve() == target.resolve()


def queue(fake_slurm, folder, *jobs):
    """Put jobs into squeue's answer: id, state, reason, submission and name of each."""
    lines = [
        f"{own}|{state}|{reason}|{comment(folder.root, '0001', name)}\n"
        for own, state, reason, name in jobs
    ]
    other = "99|RUNNING|None|somebody else's\n98|PENDING|None|harness-0/0001/x\n"
    (fake_slurm / "queue").write_text("".join(lines) + other)


def test_what_is_queued_is_not_submitted_again_but_waited_for(submit, fake_slurm):
    submit(only={"seed": ["1"]})
    queue(
        fake_slurm,
        submit.folder,
        ("1", "RUNNING", "None", "toy-1.5b.baseline.s1"),
        ("2_0", "PENDING", "Dependency", "toy-1.5b.baseline.s1.cells"),
        ("3", "PENDING", "Resources", "toy-1.5b.monotone.s1"),
        ("5", "PENDING", "Dependency", "report"),
    )
    again = submit(only={"seed": ["1"]})
    assert (again.complete, again.queued) == (0, 3)
    assert [(job.name, job.units, job.after) for job in again.jobs] == [
        ("toy-1.5b.baseline.s1.cells", 1, ("1",)),
        ("toy-1.5b.monotone.s1.cells", 2, ("3",)),
        ("report", 0, ("6", "7", "1", "2", "3", "5")),
    ]
    assert (again.place / "toy-1.5b.baseline.s1.cells.units").read_text().split() == (
        again.place.parent / "0001" / "toy-1.5b.baseline.s1.cells.units"
    ).read_text().split()[1:]


def test_nothing_is_submitted_where_all_is_queued(submit, fake_slurm):
    only = {"seed": ["1"], "arm": ["baseline"]}
    submit(only=only)
    name = "toy-1.5b.baseline.s1"
    queue(
        fake_slurm,
        submit.folder,
        ("1", "RUNNING", "None", name),
        ("2_0", "PENDING", "Dependency", f"{name}.cells"),
        ("2_1", "PENDING", "Dependency", f"{name}.cells"),
    )
    again = submit(only=only)
    assert (again.place, again.jobs, again.queued) == (None, [], 3)


def test_a_job_that_is_just_ending_is_waited_for_and_done_again(submit, fake_slurm):
    only = {"seed": ["1"], "arm": ["baseline"]}
    submit(only=only)
    name = "toy-1.5b.baseline.s1"
    queue(fake_slurm, submit.folder, ("1", "COMPLETING", "None", name))
    jobs = submit(only=only).jobs
    assert (jobs[0].name, jobs[0].after) == (name, ("1",))


def test_nothing_is_submitted_where_the_queue_is_unknown(submit, fake_slurm):
    submit()
    (fake_slurm / "down").touch()
    with pytest.raises(HarnessError, match="squeue failed: squeue: error: Unable to"):
        submit()
    assert len(list(fake_slurm.glob("*.sh"))) == 9


def test_what_slurm_refuses_is_said_in_its_words(submit, fake_slurm):
    (fake_slurm / "full").touch()
    with pytest.raises(HarnessError, match=r"Slurm refuses toy:.*invalid account"):
        submit()


def test_an_outer_job_is_hidden_and_the_settings_of_slurm_are_not(
    submit, fake_slurm, monkeypatch
):
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    for name in ("SLURM_JOB_ID", "SBATCH_PARTITION", "SLURM_CPU_BIND", "RANK"):
        monkeypatch.setenv(name, "1")
    submit(only={"seed": ["1"], "arm": ["baseline"]})
    lines = (fake_slurm / "1.env").read_text().splitlines()
    names = {line.partition("=")[0] for line in lines}
    assert {x for x in names if x.startswith(("SLURM", "SBATCH"))} == {"SLURM_CONF"}
    assert "RANK" not in names
    assert os.environ["SLURM_JOB_ID"] == "1"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["cluster.time=null"], "there is no GPU here to plan times for"),
        (["cluster.time=null", "cluster.device=H1000"], "unknown device 'H1000'"),
        (["cluster.time=null", "cluster.device=H100"], "the size of toy-1.5b"),
    ],
)
def test_a_time_that_cannot_be_planned_is_asked_for(
    submit, monkeypatch, overrides, said
):
    monkeypatch.setattr("harness.suite.devices.gpu_name", lambda: None)
    monkeypatch.setattr("harness.suite.devices.calibrated", lambda: None)
    with pytest.raises(UsageError, match=said):
        submit(*overrides)
    assert not (submit.folder.root / "cluster").exists()


def test_without_slurm_it_says_where_to_go(suite, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main(["run", str(suite), "--executor", "slurm", "--out", "r"])
    assert ended.value.code == 2


def test_cancelling_names_arrays_as_a_whole(submit, fake_slurm):
    submit(only={"seed": ["1"]})
    name = "toy-1.5b.baseline.s1"
    queue(
        fake_slurm,
        submit.folder,
        ("2_1", "PENDING", "Dependency", f"{name}.cells"),
        ("2_0", "RUNNING", "None", f"{name}.cells"),
        ("3", "PENDING", "Resources", "toy-1.5b.monotone.s1"),
    )
    assert [job.id for job in cancel(submit.folder)] == ["2_0", "2_1", "3"]
    said = (fake_slurm / "said").read_text().splitlines()
    assert said == ["scancel 2_1 3", "scancel 2_0"]
    (fake_slurm / "queue").write_text("")
    assert queued_jobs(submit.folder) == []


def test_flags_reach_the_scripts(suite, fake_slurm, capsys):
    flags = ["--partition", "debug", "--time", "30", "--only", "arm=baseline,seed=1"]
    with pytest.raises(SystemExit) as ended:
        main(["run", str(suite), "--executor", "slurm", *flags])
    assert ended.value.code == 0
    text = (fake_slurm / "1.sh").read_text()
    assert "#SBATCH --partition=debug\n" in text
    assert "#SBATCH --time=30\n" in text
    assert "#SBATCH --account=lab\n" in text
    assert "submitted 3 units" in capsys.readouterr().out


def test_what_is_asked_of_a_cluster_needs_one(suite, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", str(suite), "--partition", "debug"])
    assert ended.value.code == 2
    assert "--partition needs --executor slurm" in capsys.readouterr().err
