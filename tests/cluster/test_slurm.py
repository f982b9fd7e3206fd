"""A run on a real Slurm: put back, drained, cancelled, preempted, out of time; resumed.

All of it happens to one run, whose records must be those of one process. Slurm is that
of ``.ci/slurm start``, which `SLURM_CONF` must name.
"""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cli import main
from tests.tiny_inputs import write_inputs

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]
HERE = Path(__file__).parent
SUITE = """
name: small
plugins: [{plugin}]
models:
  tiny: {{adapter: pythia, path: model}}
arms:
  baseline: {{}}
  abs: {{constraint: none, start: abs}}
corpora:
  test: {{path: text.jsonl}}
examples:
  test: {{corpus: test, count: 3}}
  prompt_tokens: 8
  reference_tokens: 5
attacks:
  gated: {{}}
  none: {{}}
diagnostics: none
device: cpu
seeds: [7]
cluster: {{time: 10, cpus: 1, memory_gib: 0.5}}
"""
PATIENCE_S = 600
"""For each state: this machine may have much else to do."""


def slurm(*command):
    """Return what a command of Slurm prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def jobs():
    """Return the state of each job in the queue by its name, arrays one by one."""
    text = slurm("squeue", "--noheader", "--array", "--format", "%j|%K|%i|%T|%r|%M")
    found = {}
    for line in text.splitlines():
        name, number, own, state, reason, took = line.split("|")
        name = name.removeprefix("small:")
        key = name if number == "N/A" else f"{name}[{number}]"
        found[key] = {"id": own, "state": state, "reason": reason, "took": took}
    return found


def until(question, what):
    """Wait until a question has an answer, and return it."""
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        if answer := question():
            return answer
        time.sleep(0.3)
    print(slurm("squeue", "--array"), slurm("sinfo", "--long"))
    raise TimeoutError(f"{what} did not come about")


def waiting():
    """Return the jobs that wait for others."""
    return {name for name, job in jobs().items() if job["reason"] == "Dependency"}


def state_of(name, *states):
    job = jobs().get(name)
    return job if job and job["state"] in states else None


def restarts(job_id):
    text = slurm("scontrol", "show", "job", job_id)
    return int(text.partition("Restarts=")[2].split()[0])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with the suite, its model and its text."""
    asked = bool(os.environ.get("HARNESS_NEEDS_SLURM"))
    try:
        answers = "UP" in slurm("scontrol", "ping")
    except (OSError, subprocess.CalledProcessError):
        answers = False
    if not answers and not asked:
        pytest.skip("needs a Slurm of its own: `make test-slurm` starts one")
    assert answers, "HARNESS_NEEDS_SLURM is set, and no Slurm answers"
    folder = tmp_path_factory.mktemp("on slurm")
    write_inputs(folder, 6)
    (folder / "small.yaml").write_text(SUITE.format(plugin=HERE / "gated.py"))
    return folder


def harness(*arguments, code=0):
    """Run a command in this process."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == code


class Run:
    """A run on Slurm, and how to hold up its cells."""

    def __init__(self, place):
        self.place, self.folder = place, place / "a run"
        self.gates = place / "gates"
        self.gates.mkdir()

    def submit(self, capsys):
        capsys.readouterr()
        harness(*("run", self.place / "small.yaml", "--out", self.folder), *SLURM)
        return capsys.readouterr().out

    def cell(self, arm):
        (folder,) = self.folder.glob(f"cells/tiny.{arm}.s7.gated-*")
        return folder

    def gate(self, name, arm):
        return self.gates / f"{name}.{self.cell(arm).name[-8:]}"

    def hold(self, arm):
        self.gate("hold", arm).touch()

    def until_held(self, arm):
        """Wait until a cell is at its second example; it has finished the first."""
        until(self.gate("held", arm).exists, f"tiny.{arm} at its second example")
        self.gate("held", arm).unlink()
        rows = (self.cell(arm) / "samples.partial.jsonl").read_text().splitlines()
        assert sum('"example_id"' in line for line in rows) == 1

    def release(self, arm):
        self.gate("hold", arm).unlink()

    def record(self, kind, arm, attack=""):
        end = f".{attack}-" if attack else "-"
        paths = self.folder.glob(f"{kind}s/tiny.{arm}.s7{end}*/record.json")
        return next((json.loads(path.read_text()) for path in paths), None)


SLURM = ("--executor", "slurm")
RESUME = ("scontrol", "update", "nodename=n1,n2", "state=resume")
ALL = {
    *("tiny.baseline.s7", "tiny.baseline.s7.cells[0]", "tiny.baseline.s7.cells[1]"),
    *("tiny.abs.s7", "tiny.abs.s7.cells[0]", "tiny.abs.s7.cells[1]", "report"),
}


def test_whatever_happens_to_jobs_the_records_are_those_of_one_process(
    place, monkeypatch, capsys
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of jobs, too: sums are the same
    alone = ("run", str(place / "small.yaml"), "--out", str(place / "alone"))
    process = subprocess.Popen([sys.executable, "-m", "harness", *alone])
    run = Run(place)
    monkeypatch.setenv("GATES", str(run.gates))
    try:
        arrays_wait_for_their_variant(run, capsys)
        a_job_is_put_back(run)
        nothing_starts_on_drained_nodes(run)
        the_run_is_cancelled(run, capsys)
        the_same_command_goes_on(run, capsys)
        a_cell_makes_room_for_a_higher_partition(run)
        a_cell_runs_out_of_time(run)
        until(lambda: not jobs(), "an empty queue")
        assert process.wait(PATIENCE_S) == 0
    finally:
        for command in (RESUME, ("scancel", "--user", str(os.getuid()))):
            subprocess.run(command, check=False)  # nodes may be at work already
        process.kill()
    assert (run.folder / "report" / "report.txt").exists()
    harness("status", run.folder, "--watch")
    assert "6 complete" in capsys.readouterr().out
    finished_examples_were_not_attacked_again(run)
    records_are_equal(run.folder, place / "alone")


def arrays_wait_for_their_variant(run, capsys):
    assert "submitted 6 units" in run.submit(capsys)
    queue = jobs()
    assert queue.keys() == ALL
    for arm in ("baseline", "abs"):
        ids = [queue[f"tiny.{arm}.s7.cells[{number}]"]["id"] for number in (0, 1)]
        assert ids[0].removesuffix("_0") == ids[1].removesuffix("_1")
        run.hold(arm)
    later = {name for name in ALL if "cells" in name or name == "report"}
    until(lambda: waiting() == later, "all that waits for something")
    assert "nothing to submit: 0 complete, 6 in the queue" in run.submit(capsys)
    harness("status", run.folder)
    assert "queued (job" in capsys.readouterr().out


def a_job_is_put_back(run):
    variant = until(lambda: state_of("tiny.baseline.s7", "RUNNING"), "a running job")
    slurm("scontrol", "requeue", variant["id"])
    assert restarts(variant["id"]) == 1
    # What waits for it, goes on waiting.
    assert "tiny.baseline.s7.cells[0]" in waiting()


def nothing_starts_on_drained_nodes(run):
    until(lambda: run.record("variant", "abs"), "a variant")
    # It may have begun, between the two: then it goes on to its end.
    slurm("scontrol", "update", "nodename=n1,n2", "state=drain", "reason=test")
    begun = {name for name, job in jobs().items() if job["state"] != "PENDING"}
    until(lambda: not state_of("tiny.abs.s7", "RUNNING", "COMPLETING"), "its end")
    waiting = {name: job["reason"] for name, job in jobs().items() if name not in begun}
    assert waiting
    assert {jobs()[name]["state"] for name in waiting} == {"PENDING"}
    slurm(*RESUME)


def the_run_is_cancelled(run, capsys):
    run.until_held("abs")
    harness("cancel", run.folder)
    assert "cancelled" in capsys.readouterr().out
    until(lambda: not jobs(), "an empty queue")
    assert run.record("variant", "abs")
    assert run.record("cell", "abs", "gated") is None


def the_same_command_goes_on(run, capsys):
    missing = sum(
        run.record(kind, arm, attack) is None
        for arm in ("baseline", "abs")
        for kind, attack in (("variant", ""), ("cell", "gated"), ("cell", "none"))
    )
    assert f"submitted {missing} units ({6 - missing} complete" in run.submit(capsys)
    assert "tiny.abs.s7" not in jobs()  # it is complete


def a_cell_makes_room_for_a_higher_partition(run):
    run.until_held("abs")
    cell = until(lambda: state_of("tiny.abs.s7.cells[0]", "RUNNING"), "a running cell")
    node = slurm("squeue", "--noheader", "--jobs", cell["id"], "--format", "%N").strip()
    whole = ("--nodes", "1", "--nodelist", node, "--cpus-per-task", "2")
    more = ("--output", "/dev/null", "--job-name", "higher", "--wrap", "sleep 1")
    slurm("sbatch", "--partition", "high", *whole, *more)
    until(lambda: restarts(cell["id"]) == 1, "a job that was preempted")
    run.release("abs")
    until(lambda: run.record("cell", "abs", "gated"), "the cell after all")


def a_cell_runs_out_of_time(run):
    run.until_held("baseline")
    name = "tiny.baseline.s7.cells[0]"
    cell = until(lambda: state_of(name, "RUNNING"), "a running cell")
    before = restarts(cell["id"])
    parts = [int(part) for part in cell["took"].split(":")]
    minutes = math.ceil((60 * parts[-2] + parts[-1] + 60) / 60)
    slurm("scontrol", "update", f"jobid={cell['id']}", f"timelimit={minutes}")
    until(lambda: restarts(cell["id"]) == before + 1, "a job that is back in the queue")
    slurm("scontrol", "update", f"jobid={cell['id']}", "timelimit=10")
    log = (run.cell("baseline") / "slurm.log").read_text()
    assert "stopped by SIGUSR2" in log
    assert "DUE TO TIME LIMIT" not in log  # it went by itself
    run.release("baseline")
    until(lambda: run.record("cell", "baseline", "gated"), "the cell after all")


def finished_examples_were_not_attacked_again(run):
    attacked = (run.gates / "attacked").read_text().split("\n")[:-1]
    for arm in ("baseline", "abs"):
        own = run.cell(arm).name[-8:]
        examples = [x.split()[1] for x in attacked if x.split()[0] == own]
        counts = [examples.count(x) for x in dict.fromkeys(examples)]
        assert counts[0] == counts[2] == 1
        assert counts[1] > 1  # the one that it was stopped at
        assert run.record("cell", arm, "gated")["provenance"]["restarts"] > 0


def records_are_equal(one, other):
    paths = sorted(path.relative_to(one) for path in one.glob("*s/*/record.json"))
    assert len(paths) == 6
    for path in paths:
        assert lasting(one / path) == lasting(other / path)
        samples = [(root / path).with_name("samples.jsonl") for root in (one, other)]
        if path.parts[0] == "cells":
            assert samples[0].read_bytes() == samples[1].read_bytes()


def lasting(path):
    """Return a record without what differs from attempt to attempt."""
    record = json.loads(path.read_text())
    record.pop("ledger")
    for key in ("started", "finished", "seconds", "wall_seconds", "restarts"):
        record["provenance"].pop(key)
    return record
