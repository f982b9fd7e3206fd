"""Time `harness plan`, `status` and `validate` on thousands of units.

``python -m benchmarks.scale PLACE`` plans 10,000 and 100,000 cells, writes a run folder
of 3,000 finished units into PLACE, unless it is there, and prints what each command
took: seconds of CPU and of a clock, and its largest memory.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

from tabulate import tabulate

from tests.run_fixtures import Story, write_run
from tests.tiny_inputs import write_inputs

PLANS = ((10, 100, 10), (20, 500, 10))
"""Arms, attacks and seeds of what is planned."""
ARMS, SEEDS = 10, 100
"""Of the run folder; each variant has two cells of 40 examples."""
SUITE = """
name: large
seeds: {seeds}
models:
  large: {{adapter: pythia, path: model}}
arms:
  baseline: {{}}
{arms}
corpora:
  train: {{builtin: python-topics, slice: ":70%"}}
  spare: {{builtin: python-topics, slice: "70%:80%"}}
  test: {{builtin: python-topics, slice: "80%:"}}
recovery:
  {{corpus: train, validation: spare, tokens: 512, context: 32, batch_tokens: 128}}
metrics:
  perplexity: {{corpus: test, context: 32}}
examples:
  test: {{corpus: test, count: 40}}
  prompt_tokens: 10
  reference_tokens: 6
attacks:
{attacks}
controls: none
"""


def suite_of(arms: int, attacks: int, seeds: int) -> str:
    """Return a suite with so many of each."""
    return SUITE.format(
        seeds=[*range(1, seeds + 1)],
        arms="\n".join(f"  arm{i}: {{constraint: softplus}}" for i in range(1, arms)),
        attacks="\n".join(
            f"  flip{i}: {{attack: hotflip, flips: {1 + i % 10}, candidates: {8 + i}}}"
            for i in range(attacks)
        ),
    )


def finished(place: Path) -> Path:
    """Write a run folder of finished units, as records of a tiny run have them."""
    names = ["baseline", "monotone", *(f"more{i}" for i in range(ARMS - 2))]
    more = "  {}: {{constraint: softplus, start: gauge}}\n"
    story = Story(
        seeds=[*range(1, SEEDS + 1)],
        arms="".join(more.format(name) for name in names[2:]),
        clean_loss=dict.fromkeys(names, 2.5),
        delta_loss=dict.fromkeys(itertools.product(names, ("hotflip", "random")), 0.4),
        full=True,
    )
    place.mkdir(parents=True, exist_ok=True)
    return write_run(story, place)


def timed(*arguments: str) -> list[str]:
    """Run a command; return what it took: CPU and wall in seconds, memory in MB."""
    began = time.monotonic()
    command = [sys.executable, "-m", "harness", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"harness {arguments[0]} failed")
    wall, cpu = time.monotonic() - began, used.ru_utime + used.ru_stime
    return [f"{cpu:.1f}", f"{wall:.1f}", f"{used.ru_maxrss / 1024:.0f}"]


def main() -> None:
    """Print a table of what the commands took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("place", type=Path)
    place = parser.parse_args().place
    place.mkdir(parents=True, exist_ok=True)
    # In a process of its own: children of a large one look as large.
    making = multiprocessing.get_context("spawn").Process(
        target=write_inputs, args=(place, 240)
    )
    making.start()
    making.join()
    rows = []
    for arms, attacks, seeds in PLANS:
        path = place / "large.yaml"
        path.write_text(suite_of(arms, attacks, seeds))
        took = timed("plan", str(path), "--out", str(place / "none"))
        rows.append(["plan", f"{arms * attacks * seeds:,} cells", *took])
    run = place / "finished" / "run"
    if not run.is_dir():
        finished(place / "finished")
    for name in ("status", "validate"):
        rows.append([name, f"{3 * ARMS * SEEDS:,} units", *timed(name, str(run))])
    print(tabulate(rows, headers=["command", "of", "CPU s", "wall s", "MB"]))


if __name__ == "__main__":
    main()
