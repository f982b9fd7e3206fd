"""What `status` says of a run that a cluster works on, and when it stops to look."""

import json
from types import SimpleNamespace

import pytest

from harness.cli import main, watching
from harness.cluster import queued_jobs
from harness.cluster.queue import comment
from harness.running import RunFolder, survey

REASONS = {"random": ("7_0", "RUNNING", "None"), "hotflip": ("7_1", "PENDING", "QOS")}


@pytest.fixture
def run(make_run, fake_slurm):
    """Return a run: one unit failed, two are absent and in the queue, as `REASONS`."""
    folder = make_run(seeds=[1], absent=("baseline.s1.",), failed=("monotone.s1.hot",))
    place = folder / "cluster" / "0001"
    place.mkdir(parents=True)
    absent = [unit for unit in survey(folder).units if unit.state.status == "missing"]
    cells = {unit.attack: unit.id for unit in absent}
    (place / "cells.units").write_text(f"{cells['random']}\n{cells['hotflip']}\n")
    said = comment(folder, "0001", "cells")
    lines = [f"{'|'.join(job)}|{said}\n" for job in REASONS.values()]
    (fake_slurm / "queue").write_text("".join(lines))
    return folder


def test_status_names_the_job_that_is_at_a_unit(run, capsys):
    with pytest.raises(SystemExit):
        main(["status", str(run)])
    lines = capsys.readouterr().out.splitlines()
    (running,) = (x for x in lines if ".baseline.s1.random-" in x)
    assert running.endswith("running (job 7_0)")
    (waiting,) = (x for x in lines if ".baseline.s1.hotflip-" in x)
    assert waiting.endswith("queued (job 7_1, QOS)")
    with pytest.raises(SystemExit):
        main(["status", str(run), "--json"])
    found = json.loads(capsys.readouterr().out)["units"]
    jobs = {unit["attack"]: unit["job"] for unit in found if unit["job"]}
    assert {name: job["id"] for name, job in jobs.items()} == {
        name: job[0] for name, job in REASONS.items()
    }


def test_it_looks_until_the_queue_is_empty_and_shows_failures_first(
    run, fake_slurm, monkeypatch, capsys
):
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        (fake_slurm / "queue").write_text("")

    monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=sleep))
    with pytest.raises(SystemExit) as ended:
        main(["status", str(run), "--watch"])
    assert ended.value.code == 1  # not all is complete
    assert waits == [30.0]
    out = capsys.readouterr().out.splitlines()
    assert f"{run}: 3 complete, 1 failed, 1 queued, 1 running" in out[0]
    assert "monotone.s1.hotflip" in out[1]
    assert "failed: out of paper" in out[1]
    assert "running (job 7_0)" in out[2]
    assert out[3] == "  1 queued: QOS"


def test_a_queue_that_does_not_answer_is_asked_again(
    run, fake_slurm, monkeypatch, capsys
):
    (fake_slurm / "down").touch()

    def sleep(seconds):
        (fake_slurm / "down").unlink()
        (fake_slurm / "queue").write_text("")

    monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=sleep))
    with pytest.raises(SystemExit):
        main(["status", str(run), "--watch"])
    found = capsys.readouterr()
    assert "what is in the queue is unknown: squeue failed" in found.err
    assert found.out.count("2 missing") == 2


def test_without_a_cluster_it_ends_with_the_last_unit(make_run, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["status", str(make_run(seeds=[1])), "--watch"])
    assert ended.value.code == 0
    assert "6 complete" in capsys.readouterr().out


def test_the_folder_of_another_run_is_no_job_of_this_one(run):
    moved = run.with_name("elsewhere")
    run.rename(moved)
    assert queued_jobs(RunFolder(moved)) == []
