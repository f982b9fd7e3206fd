"""Measure this machine once: what each phase of a small suite takes on it.

On a CPU, a suite of two small models runs in a fresh process, as any other suite does,
and what its records say is fitted phase by phase with what its plan says. On a GPU,
models so small say nothing of larger ones: there, the ceiling is measured, and phases
take the shares of it that are known.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from harness.base import HarnessError
from harness.records import Phase, Record
from harness.running.folder import RunFolder
from harness.suite import (
    GIB,
    Device,
    PlanCosts,
    Terms,
    Work,
    cpu_device,
    gpu_device,
    identify,
    load_experiment,
    make_plan,
    plan_costs,
)

SUITE = """
name: calibration
models:
  narrow: {adapter: scratch, width: 64, layers: 2, vocabulary: 1000, context: 64,
    steps: 20}
  wide: {adapter: scratch, width: 192, layers: 4, vocabulary: 5000, context: 128,
    steps: 20}
arms:
  baseline: {}
  softplus: {constraint: softplus, start: abs}
corpora:
  train: {builtin: python-topics, slice: ":70%"}
  search: {builtin: python-topics, slice: "70%:75%"}
  held: {builtin: python-topics, slice: "75%:80%"}
  test: {builtin: python-topics, slice: "80%:"}
recovery: {corpus: train, validation: held, tokens: 8192, context: 64,
  batch_tokens: 1024, evaluate_every: 4, evaluation_tokens: 1024}
metrics:
  perplexity: {corpus: test, context: 64, max_tokens: 6000}
examples:
  test: {corpus: test, count: 8}
  search: {corpus: search, count: 4}
  validation: {corpus: held, count: 4}
  prompt_tokens: 20
  reference_tokens: 20
attacks:
  hotflip: {flips: 2, candidates: 8, controls: [random]}
  multiflip: {steps: 2, candidates: 8, controls: [random]}
  uat: {trigger_tokens: 2, candidates: 4, sweeps: 1, restarts: 1, search_prompts: 4,
    validation_prompts: 4, controls: [random]}
seeds: [1]
device: cpu
"""
"""Small, but of all that a suite usually has, at two sizes."""
_FITTED: Mapping[Phase, tuple[str, ...]] = {
    "load": ("flops", "weights", "times"),
    "train": ("flops", "sequences", "times"),
    "certify": ("flops", "times"),
    "freeze": ("weights", "times"),
    "metrics": ("flops", "sequences", "times"),
    "attack": ("flops", "sequences", "times"),
    "rescore": ("flops", "sequences", "times"),
}
"""Of which amounts of work a phase's seconds are taken for a sum."""
_TERMS = {
    "flops": "flop",
    "values": "value",
    "sequences": "sequence",
    "weights": "weight",
    "times": "once",
}


def calibrate(
    say: Callable[[str], None],
    run: Callable[[Path, Path, Path], float] | None = None,
) -> Device:
    """Return this machine as it was measured; takes a minute or two on a CPU.

    `run` runs a suite into a folder with a store, by default `run_suite`; it returns
    what that took in seconds. Raises HarnessError where a unit of it fails.
    """
    import torch

    if torch.cuda.is_available():
        say("measuring matrix products on the GPU")
        return _gpu()
    say("calibrating: a small suite runs, which takes a minute or two")
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        return _cpu(Path(folder), run or run_suite)


# --- a GPU --------------------------------------------------------------------------


def _gpu() -> Device:
    import torch

    properties = torch.cuda.get_device_properties(0)
    ceilings = {
        "float32": _ceiling("cuda", torch.float32, 8192),
        "bfloat16": _ceiling("cuda", torch.bfloat16, 8192),
    }
    return gpu_device(properties.name, ceilings, properties.total_memory / GIB)


def _ceiling(device: str, dtype: object, size: int) -> float:
    """Return the TFLOP/s of products of square matrices: the best of five."""
    import torch

    one = torch.randn(size, size, device=device).to(dtype)  # type: ignore[call-overload]
    best = float("inf")
    for _ in range(6):
        begun = time.perf_counter()
        product = one @ one
        float(product[0, 0])  # waits for it
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best / 1e12


# --- a CPU --------------------------------------------------------------------------


def _cpu(folder: Path, run: Callable[[Path, Path, Path], float]) -> Device:
    import torch

    suite, out, store = folder / "calibration.yaml", folder / "run", folder / "store"
    suite.write_text(SUITE)
    experiment = identify(load_experiment(suite), store)
    plan = make_plan(experiment)
    costs = plan_costs(plan, store)  # while the store is empty
    took = run(suite, out, store)
    made = RunFolder(out)
    records = {x.id: made.record(x.kind, x.id) for x in plan.units}
    known = {unit: record for unit, record in records.items() if record is not None}
    if len(known) < len(records):
        raise HarnessError("the suite that calibrates this machine did not complete")
    terms = {phase: _fit(phase, costs, known) for phase in get_args(Phase)}
    walls = [record.provenance.wall_seconds or 0.0 for record in known.values()]
    besides = sum(walls) - sum(
        sum(record.provenance.seconds.values()) for record in known.values()
    )
    smallest = min(_peaks(known.values()))
    return cpu_device(
        terms,
        tflops=_ceiling("cpu", torch.float32, 1024),
        per_unit_s=max(0.0, besides / len(known)),
        per_run_s=max(0.0, took - sum(walls)),
        base_memory_gib=smallest / GIB,
    )


def run_suite(suite: Path, out: Path, store: Path) -> float:
    """Run a suite in a process of its own; return the seconds that it took."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "harness", "run", str(suite), "--out", str(out)],
        env={**os.environ, "HARNESS_STORE": str(store)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise HarnessError(
            "the suite that calibrates this machine failed: "
            f"{done.stderr.strip()[-300:]}"
        )
    return time.monotonic() - begun


def _peaks(records: Iterable[Record]) -> Iterator[int]:
    for record in records:
        for cost in record.ledger.kept.values():
            yield cost.peak_memory_bytes or 0


def _fit(phase: Phase, costs: PlanCosts, records: Mapping[str, Record]) -> Terms:
    """Fit the seconds of a phase, none of them less than 0, to the amounts of work.

    Relative and absolute errors count about alike.
    """
    rows: list[Work] = []
    seconds: list[float] = []
    for unit, record in records.items():
        part, spent = costs.units[unit].whole.get(phase), record.ledger.kept.get(phase)
        if part is not None and spent is not None:
            rows.append(part.work)
            seconds.append(max(0.0, spent.seconds - part.work.seconds))
    names = _FITTED[phase]
    found = fit_terms([[getattr(x, name) for name in names] for x in rows], seconds)
    return Terms(**{_TERMS[name]: x for name, x in zip(names, found, strict=True)})


def fit_terms(
    amounts: Sequence[Sequence[float]], seconds: Sequence[float]
) -> list[float]:
    """Return what each amount takes, [k]: amounts [n, k] times it are the seconds [n].

    Least squares with no term below 0, each row weighed by the root of its seconds.
    """
    from scipy.optimize import nnls

    table, wanted = np.array(amounts, float), np.array(seconds, float)
    scale = table.max(axis=0)
    scale[scale == 0] = 1.0
    weight = 1 / np.sqrt(np.maximum(wanted, 1e-3))
    found, _ = nnls(table / scale * weight[:, None], wanted * weight)
    return [float(x) for x in found / scale]
