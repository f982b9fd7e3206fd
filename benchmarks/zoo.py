"""Run the zoo of suites/rigour: arms and attacks made to fail, and their words.

Run from the repository's root, for example:

    python benchmarks/zoo.py --runs 20 --jobs 2 --out zoo
    python benchmarks/zoo.py --runs 1 --kinds nulls,masks/clipped --out zoo
    python benchmarks/zoo.py --runs 3 --full --jobs 64 --out zoo

Each run of a kind is `harness run` of its suite in a process of one thread, with the
baseline and no other arm, and with seeds and test documents of its own; the small model
is trained once, in a store that all share. What is done is skipped, so the command can
be stopped and given again. It prints how often each kind got which word, and exits with
1 where a word was right in fewer than nine of ten runs, a run did not end, or an arm
was called harder to attack.

That word takes `diagnostics: full` and an attack without gradients: `--full` asks for
both, and counts all words, of which only that one is then held against the suites.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
from tabulate import tabulate

from harness.suite import load_experiment

SUITES = Path(__file__).parents[1] / "suites" / "rigour"
MUST_BE = re.compile(r"^  (?P<arm>[\w-]+):.*#.*must be: (?P<word>[a-z -]+)$", re.M)
"""An arm of a suite file with the word that it must get."""
HELD_OUT = 70
"""From which percent of the documents on the model was not trained on them. The test
documents of each run begin a percent further on."""
ENOUGH = 0.9
"""The share of runs in which a word has to be right."""
HARDER = "harder to attack"
UNFINISHED = "no verdict"
FULL = {
    "diagnostics": "full",
    "attacks.query": "{flips: 3, queries: 96, controls: [random]}",
}
"""What the word takes that the suites do not ask for."""


@dataclass(frozen=True)
class Job:
    """One run of one kind of the zoo."""

    suite: str
    arm: str
    number: int
    """Which run: its seeds and documents follow from it."""
    out: Path
    full: bool = False
    """Whether all questions are asked."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        every = "full" if self.full else "standard"
        return self.out / every / self.suite / self.arm / f"{self.number:02}"

    @property
    def verdicts(self) -> Path:
        """What the run ends with."""
        return self.folder / "report" / "verdicts.json"

    def do(self) -> Job:
        """Run the kind, unless that is done, and keep what it prints."""
        if not self.verdicts.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "printed.txt").open("w") as printed:
                subprocess.run(
                    self._command, env=_environment(self.out), stdout=printed,
                    stderr=subprocess.STDOUT, check=False,
                )  # fmt: skip
        return self

    @property
    def _command(self) -> list[str]:
        suite = SUITES / f"{self.suite}.yaml"
        count = len(load_experiment(suite).suite.seeds)
        first, begin = count * self.number + 1, HELD_OUT + self.number
        changes = {
            "seeds": list(range(first, first + count)),
            "corpora.test.slice": f"{begin}%:",
            **{f"arms.{x}": "null" for x in expected(self.suite) if x != self.arm},
            **(FULL if self.full else {}),
        }
        stated = [
            x for key, value in changes.items() for x in ("--set", f"{key}={value}")
        ]
        harness = Path(sys.executable).with_name("harness")
        return [str(harness), "run", str(suite), "--out", str(self.folder), *stated]

    def word(self) -> str:
        """Return what the arm is called, if the run came to its end."""
        if not self.verdicts.is_file():
            return UNFINISHED
        found = json.loads(self.verdicts.read_text())
        return {each["arm"]: str(each["verdict"]) for each in found["arms"]}[self.arm]


def _environment(out: Path) -> dict[str, str]:
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    store = {"HARNESS_STORE": str(store_of(out))}
    return {**os.environ, **one_thread, **store, "CUDA_VISIBLE_DEVICES": ""}


def store_of(out: Path) -> Path:
    """Return the store that all runs share."""
    return out.absolute() / ".store"


def train(suite: str, out: Path) -> None:
    """Train the model of a suite into the store, with all cores, unless it is there."""
    for model in load_experiment(SUITES / f"{suite}.yaml").models.values():
        model.load(store_of(out))


def expected(suite: str) -> dict[str, str]:
    """Return the word that each arm of a suite must get, from its file."""
    text = (SUITES / f"{suite}.yaml").read_text()
    return {found["arm"]: found["word"] for found in MUST_BE.finditer(text)}


def suites() -> list[str]:
    """Return the suites of the zoo: those that say what an arm must be called."""
    found = sorted(path.stem for path in SUITES.glob("*.yaml"))
    return [suite for suite in found if expected(suite)]


def kinds(chosen: str = "") -> list[tuple[str, str]]:
    """Return suites and arms, all or those chosen as ``suite`` or ``suite/arm``."""
    known = [(suite, arm) for suite in suites() for arm in expected(suite)]
    names = chosen.split(",")
    return [x for x in known if not chosen or x[0] in names or "/".join(x) in names]


def row(jobs: Sequence[Job]) -> dict[str, object]:
    """Count the words of one kind over its runs."""
    first, got = jobs[0], Counter(job.word() for job in jobs)
    word = expected(first.suite)[first.arm]
    right, others = got[word], Counter({k: n for k, n in got.items() if k != word})
    return {
        "kind": f"{first.suite}/{first.arm}",
        "must be": word,
        "right": f"{right} of {len(jobs)}",
        "other words": ", ".join(f"{k} {n}" for k, n in others.most_common()),
        HARDER: got[HARDER],
        "met": (first.full or right >= ENOUGH * len(jobs))
        and not got[HARDER]
        and not got[UNFINISHED],
    }


@click.command()
@click.option("--runs", default=20, help="How many runs of each kind.")
@click.option("--jobs", default=2, help="How many at a time, a core each.")
@click.option(
    "--kinds", "chosen", default="", help="SUITE or SUITE/ARM, by commas; all."
)
@click.option("--full", is_flag=True, help="Ask all questions.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(runs: int, jobs: int, chosen: str, full: bool, out: Path) -> None:
    """Run what is not done, and print the words by kind."""
    wanted = kinds(chosen)
    todo = [Job(*kind, n, out, full) for n in range(runs) for kind in wanted]
    train(wanted[0][0], out)
    with ThreadPoolExecutor(jobs) as pool:
        for job in pool.map(Job.do, todo):
            print(f"{job.suite}/{job.arm} {job.number}: {job.word()}", flush=True)
    table = [row([job for job in todo if (job.suite, job.arm) == x]) for x in wanted]
    print(tabulate(table, headers="keys"))
    (out / ("zoo-full.json" if full else "zoo.json")).write_text(
        json.dumps(table, indent=1) + "\n"
    )
    sys.exit(0 if all(each["met"] for each in table) else 1)


if __name__ == "__main__":
    main()
