"""The part of ``harness run`` that hands a suite to a cluster, and runs nothing."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import click
from tabulate import tabulate

from harness import base, cluster, running, suite
from harness.cli.options import SuiteChoice
from harness.cli.printing import answer, say

_ASKED = {
    "partition": "The partition that jobs go to.",
    "account": "The account that is charged.",
    "qos": "The quality of service of jobs.",
    "time": "The time limit of jobs: minutes, or HOURS:MM:SS.",
}
"""The keys of the suite's `cluster` that have options of their own."""


def executor_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add who runs the units; `function` gets the choice as `executor`.

    What the cluster is asked for goes into its `choice`, over what the suite states.
    """

    @functools.wraps(function)
    def wrapper(choice: SuiteChoice, **arguments: Any) -> Any:
        asked = {key: arguments.pop(key) for key in _ASKED}
        stated = {key: value for key, value in asked.items() if value is not None}
        if stated and arguments["executor"] != "slurm":
            raise base.UsageError(f"--{next(iter(stated))} needs --executor slurm")
        texts = tuple(f"cluster.{k}={_scalar(k, v)}" for k, v in stated.items())
        overrides = choice.overrides + texts
        return function(choice=replace(choice, overrides=overrides), **arguments)

    for key, text in reversed(_ASKED.items()):
        wrapper = click.option(f"--{key}", metavar=key.upper(), help=text)(wrapper)
    return click.option(
        "--executor",
        type=click.Choice(["local", "slurm"]),
        default="local",
        help="Who runs the units: this machine, or the jobs of a cluster.",
    )(wrapper)


def submit(choice: SuiteChoice, *, rerun: bool) -> None:
    """Fetch what a suite lacks, submit what of it is missing, and print what that is.

    With `rerun`, what is complete is submitted, too.
    """
    experiment = choice.experiment()
    run_dir = choice.run_dir(experiment)
    store_root = base.default_store_root(run_dir)
    if suite.missing(experiment, store_root):
        suite.prefetch(experiment, store_root, say)
    planned, folder, store = running.prepare(experiment, run_dir, choice.only, say=say)
    submission = cluster.submit_run(planned, folder, store, say, rerun=rerun)
    answer("\n".join(_lines(submission, folder)))


def _scalar(key: str, value: str) -> str:
    """Write a value as YAML: a text, but for a number of minutes."""
    return value if key == "time" and value.isdecimal() else json.dumps(value)


def _lines(done: cluster.Submission, folder: running.RunFolder) -> Iterator[str]:
    before = f"{done.complete} complete, {done.queued} in the queue"
    if done.place is None:
        yield f"nothing to submit: {before}"
    else:
        units = sum(job.units for job in done.jobs)
        yield f"submitted {units} units ({before}); scripts: {done.place}"
        rows = [
            [job.id, job.name, job.tasks, job.units, job.limit, ", ".join(job.after)]
            for job in done.jobs
        ]
        headers = ["job", "name", "array", "units", "limit", "after"]
        yield tabulate(rows, headers=headers, disable_numparse=True)
    yield f"harness status {folder.root} --watch   says how far it is"
    yield f"harness cancel {folder.root}           takes it out of the queue"
