r"""Print how many passes `diagnostics: full` takes for each of `standard`.

    python benchmarks/full.py suites/pythia_1p4b.yaml --profile quick \
        --set attacks.uat=null

Passes of all attacks and controls as they are budgeted, a gradient counted as two; a
control gets those of its attack. Passes over a whole vocabulary, as those of `sweep`,
are left out. No model is loaded, and nothing is run.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from harness.suite import CellPlan, Experiment, load_experiment, make_plan


def main() -> None:
    """Print the passes of `full` as multiples of those of `standard`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", type=Path)
    parser.add_argument("--profile")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    asked = parser.parse_args()
    standard, full = (
        passes(
            load_experiment(
                asked.suite,
                profile=asked.profile,
                overrides=[*asked.overrides, f"diagnostics={level}"],
            )
        )
        for level in ("standard", "full")
    )
    unit = standard.total()
    planted = full.pop("planted weaknesses", 0)
    print(f"{'full : standard':30} {full.total() / unit:5.2f}")
    for part, spent in full.items():
        print(f"  {part:28} {spent / unit:5.2f}")
    print(f"{'beside it, planted weaknesses':30} {planted / unit:5.2f}")


def passes(experiment: Experiment) -> Counter[str]:
    """Count the passes of a suite's attacks and controls, by what they are for."""
    found: Counter[str] = Counter()
    for cell in make_plan(experiment).cells:
        placed = experiment.placed(cell.attack, cell.scene)
        examples = cell.identity["examples"]["test"]["count"]
        budget = (placed.matched or placed.attack).budget(examples)
        each = budget.forward + 2 * budget.backward
        found[_purpose(experiment, cell)] += examples * each
    return found


def _purpose(experiment: Experiment, cell: CellPlan) -> str:
    arm = cell.variant.arm
    if experiment.arms[arm].role == "plant":
        return "planted weaknesses"
    if experiment.suite.is_free(cell.attack):
        return "every token free"
    treated = experiment.suite.arms[arm].is_treatment
    return "treatments" if treated else "matches and replicas"


if __name__ == "__main__":
    main()
