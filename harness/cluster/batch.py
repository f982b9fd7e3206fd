"""Batch scripts: submitit writes and submits them, and runs nothing in them.

Of submitit we use what it does well: Slurm's options as `#SBATCH` lines, arrays, and
the call of `sbatch`. Its own way of running a job is to unpickle a function, and to
guess whether a signal means that the time is over; a job of ours is a command, and its
script tells the signals apart: the time limit is announced by USR2, to the script
alone, and leads back into the queue; Slurm sends TERM to every process of a job, when
it is cancelled or makes room for others, and knows itself what comes after.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base import HarnessError
from harness.suite import ClusterSection

if TYPE_CHECKING:
    from submitit.slurm.slurm import SlurmExecutor

_OFFLINE = "export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1"
_THREADS = 'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$SLURM_CPUS_ON_NODE}"'
_BEFORE = (
    "# The time limit comes near: the harness stops where it can go on from.",
    "late= child=",
    'trap \'late=1; [ -z "$child" ] || kill -USR2 "$child"\' USR2',
    "# Slurm sends this one to every process, so it is not passed on.",
    "trap : TERM",
)
_AFTER = (
    "child=$!",
    '[ -z "$late" ] || kill -USR2 "$child"',
    "# A signal ends `wait`, not what it waits for.",
    'wait "$child"',
    'while kill -0 "$child" 2> /dev/null; do wait "$child"; done',
    'wait "$child"',
    "code=$?",
    "# 75: stopped, to go on later; above 128: stopped before it could say so.",
    'if [ -n "$late" ] && { [ "$code" -eq 75 ] || [ "$code" -gt 128 ]; } &&',
    '    [ "${SLURM_RESTART_COUNT:-0}" -lt %d ]; then',
    '    scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}'
    '${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"',
    "fi",
    'exit "$code"',
)


@dataclass(frozen=True)
class Batch:
    """One batch script: what it runs, and what it asks for."""

    name: str
    """What the queue shows."""
    comment: str
    """What the job says of itself."""
    run: str
    """What all jobs of a submission have in common: one word."""
    command: Sequence[str]
    """The arguments of ``harness``; `units` follow."""
    units: Path | None
    """The list of units, a line for each job of the array; None to run none."""
    log: Path
    """Where it prints to; ``%a`` stands for the number in an array."""
    tasks: int
    """The jobs of its array; 0 for a single job."""
    minutes: str | int
    gpus: int
    after: Sequence[str] = ()
    """The ids of the jobs that it waits for, however they end."""


def script(batch: Batch, section: ClusterSection, folder: Path) -> str:
    """Return a batch script as text."""
    made = _executor(batch, section, folder)
    return str(made._make_submission_file_text(_command(batch), ""))


def submit(batch: Batch, section: ClusterSection, folder: Path) -> str:
    """Submit a batch script and return the job's id; it is kept in the folder.

    Raises HarnessError with what Slurm says against it.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        with _own_environment():
            job = _executor(batch, section, folder)._submit_command(_command(batch))
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        said = " ".join(str(error).split())[-400:]
        raise HarnessError(f"Slurm refuses {batch.name}: {said}") from error
    finally:
        for link in folder.glob(".submission_file_*"):  # to what has the job's id now
            link.unlink()
    return str(job.job_id)


def _executor(batch: Batch, section: ClusterSection, folder: Path) -> SlurmExecutor:
    from submitit.slurm.slurm import SlurmExecutor

    executor = SlurmExecutor(folder)
    stated = _asked(batch, section).items()
    executor.update_parameters(**{k: v for k, v in stated if v is not None})
    executor.parameters["map_count"] = batch.tasks or None
    executor.parameters["wckey"] = None  # else submitit names itself
    return executor


def _asked(batch: Batch, section: ClusterSection) -> dict[str, Any]:
    """Return Slurm's options, by submitit's names for them."""
    own = f"export HARNESS_RUN={shlex.quote(batch.run)}"
    kind = "" if section.gpu_type is None else f"{section.gpu_type}:"
    return {
        "job_name": batch.name,
        "comment": batch.comment,
        "partition": section.partition,
        "account": section.account,
        "qos": section.qos,
        "constraint": section.constraint,
        "time": batch.minutes,
        "gpus_per_node": f"{kind}{batch.gpus}" if batch.gpus else None,
        "cpus_per_task": section.cpus,
        "mem": section.memory_gib and f"{1024 * section.memory_gib:.0f}M",
        "nodes": 1,
        "ntasks_per_node": 1,
        "array_parallelism": section.concurrent or max(1, batch.tasks),
        "dependency": f"afterany:{':'.join(batch.after)}" if batch.after else None,
        "setup": [*_BEFORE, _OFFLINE, _THREADS, own, *section.setup],
        "teardown": ["\n".join(_AFTER) % section.requeues],
        "stderr_to_stdout": True,
        "use_srun": False,
        "additional_parameters": {
            "output": batch.log,
            "requeue": True,
            "signal": f"B:USR2@{section.stop_before_s}",
        },
    }


def _command(batch: Batch) -> str:
    own = shlex.join([sys.executable, "-m", "harness", *batch.command])
    if batch.units is None:
        return f"{own} &"
    line = '"$((${SLURM_ARRAY_TASK_ID:-0} + 1))p"'
    return f'{own} --units "$(sed -n {line} {shlex.quote(str(batch.units))})" &'


@contextmanager
def _own_environment() -> Iterator[None]:
    """Hide what an outer job says of itself, but not where Slurm's settings are."""
    from submitit.helpers import clean_env

    settings = os.environ.get("SLURM_CONF")
    with clean_env():
        if settings is not None:
            os.environ["SLURM_CONF"] = settings
        yield
