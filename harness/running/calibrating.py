"""Measure this machine once: what each phase of a small suite takes on it.

On a CPU, a suite of three small models runs in a fresh process, as any other suite
does, and what its records say is fitted phase by phase with what its plan says. On a
GPU, models so small say nothing of larger ones: there, the ceiling is measured, and
phases take the shares of it that are known.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from harness.base import GIB, HarnessError
from harness.records import Phase, Record
from harness.running.folder import RunFolder
from harness.suite import (
    Device,
    PlanCosts,
    Precision,
    Terms,
    cpu_device,
    gpu_device,
    identify,
    load_experiment,
    make_plan,
    phase_seconds,
    plan_costs,
)

SUITE = """
name: calibration
models:
  deep: {adapter: scratch, width: 64, layers: 8, vocabulary: 1000, context: 64,
    steps: 20}
  wide: {adapter: scratch, width: 256, layers: 2, vocabulary: 2000, context: 128,
    steps: 20}
  wordy: {adapter: scratch, width: 64, layers: 1, vocabulary: 7500, context: 64,
    steps: 20}
arms:
  baseline: {}
  softplus: {constraint: softplus, start: abs}
corpora:
  train: {builtin: python-topics, slice: ":70%"}
  search: {builtin: python-topics, slice: "70%:75%"}
  held: {builtin: python-topics, slice: "75%:80%"}
  test: {builtin: python-topics, slice: "80%:"}
recovery: {corpus: train, validation: held, tokens: 16384, context: 64,
  batch_tokens: 2048, micro_batch: 32, evaluate_every: 4, evaluation_tokens: 1024}
metrics:
  perplexity: {corpus: test, context: 64, max_tokens: 16000}
examples:
  test: {corpus: test, count: 8}
  search: {corpus: search, count: 4}
  validation: {corpus: held, count: 4}
  prompt_tokens: 16
  reference_tokens: 32
attacks:
  hotflip: {flips: 2, candidates: 8, controls: [random]}
  multiflip: {steps: 2, candidates: 8, controls: [random]}
  uat: {trigger_tokens: 2, candidates: 4, sweeps: 1, restarts: 1, search_prompts: 4,
    validation_prompts: 4, controls: [random]}
seeds: [1]
device: cpu
"""
"""Small, but of all that a suite usually has. One of its models takes most of its time
for its layers, one for matrix products, one for its vocabulary. So what each of these
takes is told apart, and that is what larger models have in other proportions. A pass of
training makes 60 MB of logits there: as those of larger vocabularies, they are too many
to be kept by the allocator, which gives them back each time."""
_FITTED: Mapping[Phase, tuple[str, ...]] = {
    "load": ("flops", "values", "weights", "times"),
    "train": ("flops", "values", "layers", "weights"),
    "certify": ("flops", "layers"),
    "freeze": ("weights", "times"),
    "metrics": ("flops", "values", "sequences", "layers"),
    "attack": ("flops", "values", "gradients", "ranked", "sequences", "layers"),
    "rescore": ("flops", "values", "sequences", "layers"),
}
"""Of which amounts of work a phase's seconds are taken for a sum."""
_TOGETHER: Sequence[Sequence[Phase]] = (
    ("load",),
    ("train",),
    ("certify",),
    ("freeze",),
    ("metrics", "attack", "rescore"),
)
"""Which phases make the same passes: what is `_SHARED` takes as long in all of them."""
_SHARED = ("flops", "values")
_TERMS = {
    "flops": "flop",
    "values": "value",
    "gradients": "gradient",
    "ranked": "ranked",
    "sequences": "sequence",
    "layers": "layer",
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

    from harness.subject import tensor_float32

    properties = torch.cuda.get_device_properties(0)
    ceilings: dict[Precision, float] = {
        "float32": _ceiling("cuda", torch.float32, 8192, times=6),
        "bfloat16": _ceiling("cuda", torch.bfloat16, 8192, times=6),
    }
    with tensor_float32(True):
        ceilings["tf32"] = _ceiling("cuda", torch.float32, 8192, times=6)
    return gpu_device(properties.name, ceilings, properties.total_memory / GIB)


def _ceiling(device: str, dtype: object, size: int, times: int) -> float:
    """Return the TFLOP/s of products of square matrices: the best of so many."""
    import torch

    one = torch.randn(size, size, device=device).to(dtype)  # type: ignore[call-overload]
    best = float("inf")
    for _ in range(times):
        begun = time.perf_counter()
        product = one @ one
        float(product[0, 0])  # waits for it
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best / 1e12


def _ranking() -> float:
    """Return the seconds in which a gradient ranks a token at one position.

    In a vocabulary that, as those of most models, no cache holds.
    """
    import torch

    from harness.subject import Gains, Place

    tokens, width, count = 2**15, 128, 8
    gains = Gains(torch.randn(tokens, width), torch.zeros(tokens, dtype=torch.bool))
    places = [Place(i, torch.randn(width), 8, scaled=True) for i in range(count)]
    best = float("inf")
    for _ in range(20):
        begun = time.perf_counter()
        gains.best(places)()
        best = min(best, time.perf_counter() - begun)
    return best / (count * tokens)


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
    # Each takes some milliseconds: one of them has the core for itself.
    ceiling = _ceiling("cpu", torch.float32, 512, times=100)
    least = {"flops": 1e-12 / ceiling, "ranked": _ranking()}
    begun = plan.units[0].id
    terms: dict[Phase, Terms] = {}
    for phases in _TOGETHER:
        terms |= fit_phases(phases, costs, known, least, but=begun)
    walls = [record.provenance.wall_seconds or 0.0 for record in known.values()]
    besides = sum(walls) - sum(
        sum(record.provenance.seconds.values()) for record in known.values()
    )
    device = cpu_device(
        terms,
        tflops=ceiling,
        per_unit_s=max(0.0, besides / len(known)),
        base_memory_gib=min(_peaks(known.values())) / GIB,
    )
    own = took - sum(walls) - phase_seconds(device, "rescore", costs.replay)
    imports = known[begun].ledger.kept["load"].seconds
    imports -= phase_seconds(device, "load", costs.units[begun].whole["load"].work)
    return device.model_copy(update={"per_run_s": max(0.0, own + max(0.0, imports))})


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


def fit_phases(
    phases: Sequence[Phase],
    costs: PlanCosts,
    records: Mapping[str, Record],
    least: Mapping[str, float],
    *,
    but: str,
) -> dict[Phase, Terms]:
    """Fit what records say that phases took to the work that was planned for them.

    None of an amount takes less than 0 seconds, or than `least`, which was measured: in
    models so small it might be put down to other amounts, which grow otherwise. The
    load of the unit `but` is left out, which imports what all others use.
    """
    columns = [*dict.fromkeys(_column(x, name) for x in phases for name in _FITTED[x])]
    seen = [*_seen(phases, costs, records, but)]
    found = fit_terms(
        [[amounts.get(column, 0.0) for column in columns] for amounts, _ in seen],
        [seconds for _, seconds in seen],
        [least.get(name, 0.0) for _, name in columns],
    )
    takes = dict(zip(columns, found, strict=True))
    return {
        phase: Terms(
            **{_TERMS[name]: takes[_column(phase, name)] for name in _FITTED[phase]}
        )
        for phase in phases
    }


_Column = tuple[Phase | None, str]


def _column(phase: Phase, name: str) -> _Column:
    """Return what stands for an amount of a phase, or of all that share it."""
    return None if name in _SHARED else phase, name


def _seen(
    phases: Sequence[Phase],
    costs: PlanCosts,
    records: Mapping[str, Record],
    but: str,
) -> Iterator[tuple[dict[_Column, float], float]]:
    """Yield the amounts of each of the phases of each unit, and its seconds."""
    for (unit, record), phase in product(records.items(), phases):
        part = costs.units[unit].whole.get(phase)
        spent = record.ledger.kept.get(phase)
        if part is None or spent is None or (phase, unit) == ("load", but):
            continue
        # What was made, where that is not quite what was planned.
        planned, made = part.cost.flops, spent.compared_flops
        share = made / planned if planned and made else 1.0
        amounts = {
            _column(phase, name): share * getattr(part.work, name)
            for name in _FITTED[phase]
        }
        yield amounts, max(0.0, spent.seconds - part.work.seconds)


def fit_terms(
    amounts: Sequence[Sequence[float]],
    seconds: Sequence[float],
    least: Sequence[float],
) -> list[float]:
    """Return what each amount takes, [k]: amounts [n, k] times it are the seconds [n].

    Least squares with no term below what it is at `least` [k]. Each row is weighed by
    the root of its seconds, so that relative and absolute errors count about alike.
    """
    from scipy.optimize import nnls

    table, wanted = np.array(amounts, float), np.array(seconds, float)
    scale = table.max(axis=0)
    scale[scale == 0] = 1.0
    weight = 1 / np.sqrt(np.maximum(wanted, 1e-3))
    more = wanted - table @ least
    found, _ = nnls(table / scale * weight[:, None], more * weight)
    return [float(x) for x in found / scale + least]
