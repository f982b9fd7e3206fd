"""``harness cancel``: take the jobs of a run out of the cluster's queue."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from harness import base, cluster
from harness.cli.printing import answer
from harness.running import RunFolder


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
def command(run: Path) -> None:
    """Take the jobs of a run out of the cluster's queue, waiting ones first.

    What they finished is kept: the command that submitted them goes on from there.
    """
    jobs = cluster.cancel(RunFolder(run))
    if not jobs:
        raise base.NothingMatched(f"no job of {run} is in the queue")
    states = Counter(job.state.lower() for job in jobs)
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    answer(f"cancelled {len(jobs)} jobs of {run}: {counts}")
