"""What a suite says of the cluster that it runs on; it changes no result and no id."""

from __future__ import annotations

from typing import Annotated

import pydantic

from harness.base import Positive, Strict

WORD = r"^[!-~]+$"
LIMIT = r"^(\d+:\d\d:\d\d|\d+-\d+(:\d\d){0,2})$"
MEANINGS = {
    WORD: "a name without spaces",
    LIMIT: "a time such as '4:00:00' or '1-12:00:00'",
}
"""What text that matches is, as a message says it."""

Word = Annotated[str, pydantic.Field(pattern=WORD)]
Number = Annotated[float, pydantic.Field(gt=0)]


class ClusterSection(Strict):
    """How jobs ask a Slurm cluster for what they need.

    What is not stated, the user's own file for clusters may state, and else the
    cluster decides, or the default here.
    """

    partition: Word | None = None
    """The partition that jobs go to."""
    account: Word | None = None
    """The account that is charged."""
    qos: Word | None = None
    """The quality of service."""
    constraint: Word | None = None
    """What nodes must have, as Slurm's ``--constraint`` says it."""
    time: Annotated[str, pydantic.Field(pattern=LIMIT)] | Positive | None = None
    """The time limit of every job: minutes, ``HOURS:MM:SS`` or ``DAYS-HH:MM:SS``; by
    default what `harness plan` says of the job, times `reserve`, and 10 minutes."""
    device: str | None = None
    """The kind of GPU that times are planned for, as `harness plan --device` names it:
    A100-40GB, H100, H200; by default what is where the jobs are submitted."""
    reserve: Annotated[float, pydantic.Field(ge=1)] = 2.0
    """How many times the planned time a job gets."""
    gpus: Annotated[int, pydantic.Field(ge=0)] | None = None
    """GPUs of a job that runs cells; by default 1, or 0 where the suite's `device` is
    ``cpu``. Training gets as many as `recovery.devices` says, or 0 where this is 0."""
    gpu_type: Word | None = None
    """The kind of GPU, as the cluster calls it."""
    cpus: Positive = 4
    """Cores of a job."""
    memory_gib: Number | None = None
    """Memory of a job."""
    concurrent: Positive | None = None
    """How many of a variant's cells run at the same time, at most."""
    cells_per_job: Positive = 1
    """How many cells of a variant one job runs, one after the other: starting a job and
    loading a subject takes a while, which pays for small cells."""
    stop_before_s: Positive = 120
    """How many seconds before its time limit a job is told to stop, and goes back into
    the queue to go on later. Slurm may say so up to a minute early."""
    requeues: Annotated[int, pydantic.Field(ge=0)] = 20
    """How many times a job may go back into the queue at its time limit."""
    setup: tuple[str, ...] = ()
    """Shell commands that a job starts with, such as ``module load cuda``."""

    def over(self, below: ClusterSection) -> ClusterSection:
        """Return this section with what it does not state as another one states it."""
        stated = [part.model_dump(exclude_unset=True) for part in (below, self)]
        return ClusterSection.model_validate(stated[0] | stated[1])
