r"""Compare what `harness plan` says that suites cost with what their runs take.

Run from the repository's root, with nothing else on the machine:

    OMP_NUM_THREADS=1 python benchmarks/costs.py --models FOLDER

First this machine is calibrated, as `harness plan --calibrate` does; what is kept for
the user stays as it is. Then each of four suites is planned and run: none of their
models, sizes and options took part in the calibration. FOLDER holds the stand-ins
`pythia-14m-standin` and `t5-dialogue-standin`; a suite whose model is not there is left
out. With `--clock cpu`, all is in seconds of processor time, of one thread: for a
machine that others use as well.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from harness.records import Cost, read_record
from harness.running import calibrate
from harness.suite import (
    Device,
    PricedPlan,
    identify,
    load_experiment,
    make_plan,
    plan_costs,
)

CPU_CLOCK = (
    "import time; time.perf_counter = time.monotonic = time.process_time; "
    "from harness.cli import main; main()"
)
TEXTS = """
corpora:
  train: {builtin: python-topics, slice: ":70%"}
  search: {builtin: python-topics, slice: "70%:80%"}
  validation: {builtin: python-topics, slice: "80%:85%"}
  test: {builtin: python-topics, slice: "85%:"}
"""
SUITES = {
    "scratch": f"""
models:
  deep: {{adapter: scratch, width: 128, layers: 6, vocabulary: 3000, context: 96,
    steps: 80}}
arms:
  baseline: {{}}
  monotone: {{constraint: softplus, start: abs}}
{TEXTS}
recovery: {{corpus: train, validation: validation, tokens: 32768, context: 96,
  batch_tokens: 1536, micro_batch: 16, evaluate_every: 10, evaluation_tokens: 2048}}
metrics:
  perplexity: {{corpus: test, context: 96}}
examples:
  test: {{corpus: test, count: 16}}
  search: {{corpus: search, count: 8}}
  validation: {{corpus: validation, count: 8}}
  prompt_tokens: 32
  reference_tokens: 16
attacks:
  hotflip: {{flips: 3, candidates: 4, controls: [random]}}
  uat: {{trigger_tokens: 3, candidates: 8, restarts: 1, sweeps: 1, search_prompts: 8,
    validation_prompts: 8, controls: [random]}}
seeds: [42]
""",
    "scratch-wide": f"""
models:
  wide: {{adapter: scratch, width: 320, layers: 5, vocabulary: 6000, context: 128,
    steps: 20}}
arms:
  baseline: {{}}
{TEXTS}
recovery: {{corpus: train, tokens: 12288, context: 128, batch_tokens: 1024}}
metrics:
  perplexity: {{corpus: test, context: 128, max_tokens: 10000}}
examples:
  test: {{corpus: test, count: 10}}
  search: {{corpus: search, count: 8}}
  validation: {{corpus: validation, count: 8}}
  prompt_tokens: 40
  reference_tokens: 40
attacks:
  gcg: {{steps: 6, candidates: 12}}
  query: {{flips: 2, queries: 20}}
seeds: [3]
""",
    "pythia-14m-standin": f"""
models:
  standin: {{adapter: pythia, path: MODEL}}
arms:
  baseline: {{}}
  clipped: {{constraint: projection}}
{TEXTS}
recovery: {{corpus: train, tokens: 16384, context: 256, batch_tokens: 2048,
  micro_batch: 4}}
metrics:
  perplexity: {{corpus: test, context: 512, max_tokens: 20000}}
examples:
  test: {{corpus: test, count: 12}}
  search: {{corpus: search, count: 8}}
  validation: {{corpus: validation, count: 8}}
  prompt_tokens: 48
  reference_tokens: 24
attacks:
  multiflip: {{steps: 6, candidates: 8}}
  query: {{flips: 3, queries: 24}}
seeds: [7]
""",
    "t5-dialogue-standin": """
models:
  standin: {adapter: t5, path: MODEL}
arms:
  baseline: {}
corpora:
  train: {path: PAIRS, prompt: dialogue, reference: summary, slice: ":60%"}
  test: {path: PAIRS, prompt: dialogue, reference: summary, slice: "60%:"}
recovery: {corpus: train, tokens: 16384, context: 128, batch_tokens: 2048}
metrics:
  perplexity: {corpus: test, context: 256}
examples:
  test: {corpus: test, count: 12}
  prompt_tokens: 64
  reference_tokens: 32
attacks:
  hotflip: {flips: 4, candidates: 6}
seeds: [7]
""",
}
"""Suites by the model that they need; those of `scratch` need none."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Calibrate, then plan and run each suite, and print the ratios."""
    options = parse_arguments(arguments)
    clock = Clock(cpu=options.clock == "cpu", keep=options.keep)
    device = (
        Device.model_validate_json(options.device.read_text())
        if (options.device and options.device.exists())
        else calibrate(print, clock.run)
    )
    if options.device:
        options.device.write_text(device.model_dump_json(indent=1))
    for phase, terms in device.terms.items():
        print(f"{phase}: {terms}")
    print(f"a unit {device.per_unit_s:.2f} s, a run {device.per_run_s:.1f} s")
    rows = []
    for name, text in SUITES.items():
        model = options.models / name
        if options.only and name not in options.only:
            continue
        if not name.startswith("scratch") and not model.is_dir():
            print(f"{name}: {model} is not there")
            continue
        settled = text.replace("MODEL", str(model)).replace("PAIRS", str(options.pairs))
        rows += compare(name, settled, device, clock)
    headers = ["suite", "what", "planned s", "took s", "took / planned", "FLOP ratio"]
    print(tabulate(rows, headers=headers, floatfmt=".3g"))


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--pairs", type=Path, default=Path("pairs.jsonl"))
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--only", nargs="*", help="Names of suites.")
    parser.add_argument(
        "--device", type=Path, help="A file to keep the calibration in, or to read."
    )
    parser.add_argument(
        "--keep",
        type=Path,
        help="A folder that keeps what runs leave, but for their models: a suite that "
        "it has is not run again.",
    )
    return parser.parse_args(arguments)


class Clock:
    """Runs suites, and says what that took by the wall's clock or the processor's."""

    def __init__(self, *, cpu: bool, keep: Path | None = None) -> None:
        self.cpu, self.keep = cpu, keep

    def run(self, suite: Path, out: Path, store: Path) -> float:
        """Have a suite's run in `out`, done now or kept; return what it took in s."""
        if self.keep is None:
            return self._run(suite, out, store)
        key = hashlib.sha256(suite.read_bytes()).hexdigest()[:16]
        kept = self.keep / key
        if not kept.is_dir():
            took = self._run(suite, out, store)
            (out / "took").write_text(repr(took))
            shutil.copytree(out, kept, ignore=shutil.ignore_patterns("model"))
            return took
        shutil.copytree(kept, out)
        return float((out / "took").read_text())

    def _run(self, suite: Path, out: Path, store: Path) -> float:
        """Run a suite in a process of its own; return the seconds that it took."""
        begun = self._now()
        how = ["-c", CPU_CLOCK] if self.cpu else ["-m", "harness"]
        subprocess.run(
            [sys.executable, *how, "run", str(suite), "--out", str(out)],
            env={**os.environ, "HARNESS_STORE": str(store)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        return self._now() - begun

    def _now(self) -> float:
        if not self.cpu:
            return time.monotonic()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime


def compare(
    name: str, text: str, device: Device, clock: Clock
) -> list[list[str | float]]:
    """Plan and run one suite; return a row for each phase, and one for all."""
    with tempfile.TemporaryDirectory() as folder:
        suite, out, store = (Path(folder, x) for x in ("suite.yaml", "run", "store"))
        suite.write_text(text)
        plan = make_plan(identify(load_experiment(suite), store))
        priced = PricedPlan(plan, plan_costs(plan, store), device)
        ids = [unit.id for unit in plan.units]
        took = clock.run(suite, out, store)
        print(f"{name}: took {took:.0f} s", flush=True)
        records = [read_record(path) for path in out.glob("*/*/record.json")]
    found: dict[str, Cost] = {}
    for record in records:
        for phase, cost in record.ledger.spent.items():
            found[phase] = found.get(phase, Cost()) + cost
    planned = priced.by_phase(ids)
    rows = [
        _row(name, phase, planned[phase], found.get(phase, Cost())) for phase in planned
    ]
    total = priced.total(ids)
    spent = sum(found.values(), Cost())
    rows.append(
        _row(
            name,
            "in all",
            _cost(total.seconds, total.flops),
            _cost(took, spent.compared_flops),
        )
    )
    return rows


def _cost(seconds: float, flops: float) -> Cost:
    return Cost(seconds=seconds, flops=flops)


def _row(name: str, what: str, planned: Cost, took: Cost) -> list[str | float]:
    flops = took.compared_flops / planned.flops if planned.flops else 1.0
    ratio = took.seconds / planned.seconds if planned.seconds else 0.0
    return [name, what, planned.seconds, took.seconds, ratio, flops]


if __name__ == "__main__":
    main()
