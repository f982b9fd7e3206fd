"""Clean metrics as lm-evaluation-harness writes them, for tools that read its files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import stdev
from typing import Any, NamedTuple

from harness.base import UsageError, write_json
from harness.records import Estimate, Record
from harness.results.loaded import Run

NONE = "none"
"""What lm-eval calls the filter that changes nothing."""
UNKNOWN = "N/A"
"""What it writes for a number that there is none of."""
_LOWER = ("nats", "bits", "perplexity")
"""What the units of estimates begin with of which less is better."""


class _Score(NamedTuple):
    """A score of a task, as the results name it."""

    task: str
    score: str
    """With the filter, as ``acc,none``."""
    estimate: Estimate
    values: Sequence[float]
    """Of each example, where the score is their mean."""


def export_lm_eval(run: Run, folder: Path) -> list[Path]:
    """Write ``MODEL.ARM.sSEED/results_TIME.json`` for each variant; return the files.

    Tasks of the metric lm_eval keep their names; another metric is a task of its label,
    with an example for each document. Standard errors are lm-eval's own, of means, and
    N/A where it would resample. Raises UsageError where no complete variant has a
    metric.
    """
    files = []
    for unit in run.survey.units:
        record = unit.state.record
        complete = unit.kind == "variant" and unit.state.status == "complete"
        if complete and record and record.results:
            name = f"{unit.model}.{unit.arm}.s{unit.seed}"
            time = record.provenance.finished.replace(":", "-")
            file = folder / name / f"results_{time}.json"
            write_json(file, document_of(name, record, run.metric_rows(unit)))
            files.append(file)
    if not files:
        raise UsageError(f"{run.path} has no complete variant with metrics")
    return files


def document_of(
    name: str, record: Record, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what lm-eval would write of a variant, from its record and metric rows."""
    results: dict[str, dict[str, Any]] = {}
    better: dict[str, dict[str, bool]] = defaultdict(dict)
    sizes: dict[str, dict[str, int]] = {}
    for found in _scores(record, rows):
        task = results.setdefault(found.task, {"alias": found.task})
        bare, _, filtered = found.score.partition(",")
        task[found.score] = found.estimate.value
        task[f"{bare}_stderr,{filtered}"] = _standard_error(found.values)
        task["sample_len"] = found.estimate.n
        better[found.task][bare] = not found.estimate.unit.startswith(_LOWER)
        sizes[found.task] = {
            "original": found.estimate.n,
            "effective": found.estimate.n,
        }
    options = {task: _options(record, task) for task in results}
    shots = {task: own.get("num_fewshot") for task, own in options.items()}
    return {
        "results": results,
        "group_subtasks": {task: [] for task in results},
        "configs": {task: {"task": task, **own} for task, own in options.items()},
        "versions": dict.fromkeys(results, UNKNOWN),
        "n-shot": {task: n for task, n in shots.items() if n is not None},
        "higher_is_better": dict(better),
        "n-samples": sizes,
        **_made(name, record),
    }


def _scores(record: Record, rows: Sequence[Mapping[str, Any]]) -> Iterator[_Score]:
    for label, estimates in record.results.items():
        own = [row for row in rows if row["metric"] == label]
        told = _tasks(own) or {
            name: (label, f"{name},{NONE}", []) for name in estimates
        }
        for name, estimate in estimates.items():
            if name in told and estimate.value is not None:
                task, score, values = told[name]
                yield _Score(task, score, estimate, values)


def _tasks(
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, tuple[str, str, list[float]]]:
    """Return task, score and values of each estimate, where rows are lm-eval's."""
    found: dict[str, tuple[str, str, list[float]]] = {}
    for row in rows:
        for score, value in row.get("scores", {}).items():
            task, filtered = row["task"], row["filter"]
            name = f"{task}.{score}" + ("" if filtered == NONE else f".{filtered}")
            known = found.setdefault(name, (task, f"{score},{filtered}", []))
            if row["aggregations"][score] == "mean":
                known[2].append(value)
    return found


def _standard_error(values: Sequence[float]) -> float | str:
    """Return lm-eval's standard error of a mean."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else UNKNOWN


def _options(record: Record, task: str) -> dict[str, Any]:
    """Return what of a task's options its results depend on."""
    metrics = record.identity.get("metrics") or {}
    for label, asked in metrics.items():
        options = asked.get("options", {})
        if task == label or task in options.get("tasks", ()):
            return {
                name: options[name]
                for name in ("num_fewshot", "limit", "context", "max_documents")
                if name in options
            }
    return {}


def _made(name: str, record: Record) -> dict[str, Any]:
    """Return what lm-eval says of the model and the machine, but for its name."""
    made, seconds = record.provenance, record.ledger.kept
    started, finished = (
        datetime.fromisoformat(text).timestamp()
        for text in (made.started, made.finished)
    )
    took = seconds["metrics"].seconds if "metrics" in seconds else 0.0
    return {
        "config": {
            "model": "harness",
            "model_args": f"model={record.model.label},arm={record.arm.label}",
            "model_num_parameters": record.model.parameters,
            "model_dtype": made.dtype,
            "model_revision": record.model.options.get("revision", ""),
            "model_sha": record.model.fingerprint,
            "batch_size": made.batch_size,
            "device": made.hardware.get("device"),
            "limit": record.suite.limit,
            "bootstrap_iters": 0,
        },
        "git_hash": made.commit,
        "date": started,
        "transformers_version": made.versions.get("transformers"),
        "lm_eval_version": made.versions.get("lm-eval"),
        "task_hashes": {},
        "model_source": "harness",
        "model_name": name,
        "model_name_sanitized": name,
        "start_time": started,
        "end_time": finished,
        "total_evaluation_time_seconds": str(took),
    }
