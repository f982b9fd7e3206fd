"""Units spread over jobs: each once, each after all that it needs."""

from pathlib import Path

import pytest

from harness.cluster import jobs
from harness.cluster.jobs import jobs_for
from harness.running import units_of
from harness.suite import load_experiment, make_plan

PEERS = """
models:
  tiny: {adapter: pythia, path: model}
arms:
  baseline: {}
  abs: {constraint: none, start: abs}
  late: {derive_from: abs}
corpora:
  test: {builtin: python-topics}
examples:
  test: {corpus: test, count: 3}
attacks:
  worst_case: {}
  transfer: {}
  hotflip: {flips: 2, controls: none}
  none: {}
seeds: [7, 8]
"""


@pytest.fixture
def units(tmp_path):
    """Return the units of a suite with cells that read others, in order of need."""
    path = Path(tmp_path) / "peers.yaml"
    path.write_text(PEERS)
    return units_of(make_plan(load_experiment(path)))


def before(job):
    """Return the ids of the units of all jobs that one waits for, directly or not."""
    tasks = [task for earlier in job.after for task in earlier.tasks]
    own = {unit.id for task in tasks for unit in task}
    return own.union(*map(before, job.after))


@pytest.mark.parametrize(("cells_per_job", "most"), [(1, 1000), (3, 1000), (2, 1)])
def test_each_unit_is_done_once_and_after_what_it_needs(
    units, monkeypatch, cells_per_job, most
):
    monkeypatch.setattr(jobs, "ARRAY_MOST", most)
    made = jobs_for(units, {}, cells_per_job)
    done = [unit for job in made for task in job.tasks for unit in task]
    assert sorted(unit.id for unit in done) == sorted(unit.id for unit in units)
    for job in made:
        assert len(job.tasks) <= most
        assert len({unit.variant.id for task in job.tasks for unit in task}) == 1
        for task in job.tasks:
            assert len(task) <= (1 if job.trains else cells_per_job)
            assert {need.id for unit in task for need in unit.needs} <= before(job)
    names = [job.name for job in made]
    assert len(set(names)) == len(names)


def test_there_is_one_job_a_variant_and_its_cells_are_an_array_after_it(units):
    made = {job.name: job for job in jobs_for(units, {}, 1)}
    cells = made["tiny.abs.s7.cells"]
    assert [job.name for job in cells.after] == ["tiny.abs.s7"]
    assert [task[0].attack for task in cells.tasks] == ["hotflip", "none"]
    late = made["tiny.late.s8"]
    assert [job.name for job in late.after] == ["tiny.abs.s8"]
    # What replays the cells of other arms comes after theirs.
    replays = made["tiny.abs.s7.cells-2"]
    assert {"tiny.abs.s7", "tiny.baseline.s7.cells"} <= {x.name for x in replays.after}


def test_what_the_queue_does_already_is_waited_for_there(units):
    variant = next(unit for unit in units if unit.id.startswith("tiny.abs.s7-"))
    cell = next(unit for unit in units if unit.id.startswith("tiny.abs.s8.none-"))
    left = [unit for unit in units if unit is not variant]
    made = jobs_for(left, {variant.id: ["12"], cell.id: ["15"]}, 1)
    cells = next(job for job in made if job.name == "tiny.abs.s7.cells")
    assert (cells.after, cells.queued) == ([], ["12"])
    # Its own job is just ending: it is done again, but not at the same time.
    (own,) = (job for job in made if [cell] in job.tasks)
    assert own.queued == ["15"]
    assert [job.name for job in own.after] == ["tiny.abs.s8"]
