"""Simulate what verdicts rest on, and hold it against what it must show.

Run from the repository's root, for example:

    python benchmarks/verdicts.py coverage --repeats 20000 --jobs 16 --out coverage.json
    python benchmarks/verdicts.py false-harder --repeats 20000 --jobs 16
    python benchmarks/verdicts.py power --repeats 20000 --jobs 16
    python benchmarks/verdicts.py six-identical --repeats 1000 --jobs 16
    python benchmarks/verdicts.py false-masked --repeats 1000 --jobs 16
    python benchmarks/verdicts.py false-equivalent --repeats 1000 --jobs 16

Differences in nats/token between two arms are drawn with effects of training seeds,
of documents and of both together, and judged by the statistic of verdicts. Every share
has the standard error of its simulation, that of its worst cell where a bound is held
against it. Exits with 1 if a bound is not met. The same `--repeats` draw the same
tables, whatever `--jobs` is.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from harness.records import Crossed, DiagnosticId, Margin, Word
from harness.verdicts.case import Cases
from harness.verdicts.findings import (
    SHARES,
    Arm,
    Attack,
    Cell,
    Examined,
    Findings,
    Matched,
    Model,
    Plant,
    PlantKind,
    Replayed,
)
from harness.verdicts.rule import decide

Floats = NDArray[np.float64]
SEED = 20240607
AT_ONCE = 1000
"""How many tables are drawn together: it bounds memory, and is what a job is."""
LEVEL = 0.99
"""Of one side: directional words are decided at it."""
CONTRASTS = 6
"""How many contrasts Holm's first step divides by."""


@dataclass(frozen=True)
class Point:
    """A population of differences, and the design that samples it."""

    n: int
    """Documents."""
    seeds: int
    seed_sd: float
    document_sd: float
    residual_sd: float
    shape: str = "normal"
    """The distribution of the documents' effects."""
    mean: float = 0.0


GRID = [
    Point(n, seeds, seed_sd, *spreads, shape)
    for n, seeds, seed_sd, spreads, shape in itertools.product(
        (24, 50, 200),
        (3, 5),
        (0.0, 0.05, 0.1, 0.3),
        ((0.3, 0.2), (0.1, 0.3)),
        ("normal", "t3", "lognormal", "mirrored"),
    )
]
POWER = [
    Point(n, seeds, seed_sd, 0.5, 0.2, shape, -0.3)
    for n, seeds, seed_sd, shape in itertools.product(
        (24, 50, 200), (3, 5, 8), (0.0, 0.05, 0.1, 0.3), ("normal", "lognormal")
    )
]
PROMISED = Point(200, 5, 0.05, 0.5, 0.2, "normal", -0.3)
"""Where the power is promised to be at least 90 %."""
SMALL = [point for point in GRID if point.n < 50 and point.seed_sd in (0.0, 0.1)]


@dataclass(frozen=True)
class Share:
    """In how many of a point's tables something was said."""

    point: Point
    said: int
    repeats: int

    @property
    def value(self) -> float:
        return self.said / self.repeats

    @property
    def error(self) -> float:
        """Its standard error, by the simulation's size."""
        return _error(self.value, self.repeats)


@dataclass(frozen=True)
class Bound:
    """What a share must keep to, or the mean over a grid."""

    what: str
    value: float
    """The share that is held against it."""
    error: float
    at_least: float = 0.0
    at_most: float = 1.0

    @property
    def met(self) -> bool:
        return self.at_least <= self.value <= self.at_most


# --- what is drawn -----------------------------------------------------------------


def tables(point: Point, repeats: int, rng: np.random.Generator) -> Floats:
    """Draw tables of differences, [repeats, seeds, documents]."""
    documents = effects(point.shape, rng, (repeats, 1, point.n))
    seeds = rng.normal(size=(repeats, point.seeds, 1))
    residuals = rng.normal(size=(repeats, point.seeds, point.n))
    return (
        point.mean
        + point.document_sd * documents
        + point.seed_sd * seeds
        + point.residual_sd * residuals
    )


def effects(shape: str, rng: np.random.Generator, size: tuple[int, ...]) -> Floats:
    """Draw effects of mean 0 and variance 1."""
    if shape == "normal":
        return rng.normal(size=size)
    if shape == "t3":
        return rng.standard_t(3, size) / math.sqrt(3)
    skewed = rng.lognormal(size=size) - math.exp(0.5)
    skewed /= math.sqrt(math.e * (math.e - 1))
    return skewed if shape == "lognormal" else -skewed


# --- what is said of it ------------------------------------------------------------


def covered(drawn: Crossed[Floats], point: Point) -> NDArray[np.bool_]:
    """Say whether the 95 % interval holds the true mean."""
    low, high = drawn.interval(0.95)
    return (low <= point.mean) & (point.mean <= high)


def harder(drawn: Crossed[Floats], point: Point, contrasts: int) -> NDArray[np.bool_]:
    """Say whether the difference is below 0, at Holm's strictest step."""
    return drawn.upper(1 - (1 - LEVEL) / contrasts) < 0


Says = Callable[[Crossed[Floats], Point], NDArray[np.bool_]]


def simulate(
    says: Says, points: Sequence[Point], repeats: int, jobs: int = 1
) -> list[Share]:
    """Count in how many tables of each point `says` is true."""
    parts = [
        (index, first, min(AT_ONCE, repeats - first))
        for index in range(len(points))
        for first in range(0, repeats, AT_ONCE)
    ]
    counts = [0] * len(points)
    count = partial(_count, says, points)
    for (index, _, _), said in zip(parts, _spread(count, parts, jobs), strict=True):
        counts[index] += said
    return [Share(*pair, repeats) for pair in zip(points, counts, strict=True)]


def _count(says: Says, points: Sequence[Point], part: tuple[int, int, int]) -> int:
    index, first, repeats = part
    rng = np.random.default_rng([SEED, index, first])
    drawn = Crossed.batch(tables(points[index], repeats, rng))
    return int(np.count_nonzero(says(drawn, points[index])))


def _spread(count: Callable[[Any], int], parts: list[Any], jobs: int) -> Iterator[int]:
    if jobs == 1:
        yield from map(count, parts)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(count, parts, chunksize=8)


# --- what it must show -------------------------------------------------------------


def coverage_bounds(shares: Sequence[Share]) -> list[Bound]:
    """Hold the interval's coverage against 92 to 99 % at every point."""
    ordered = sorted(shares, key=lambda share: share.value)
    return [
        Bound("least", ordered[0].value, ordered[0].error, at_least=0.92),
        Bound("most", ordered[-1].value, ordered[-1].error, at_most=0.99),
        _mean(shares),
    ]


def false_bounds(shares: Sequence[Share], contrasts: int) -> list[Bound]:
    """Hold false words against twice the nominal share, and 1.2 % on average."""
    most = max(shares, key=lambda share: share.value)
    limit = 0.02 if contrasts == 1 else 0.004
    limit += 2 * _error(limit, most.repeats)
    mean = 0.012 if contrasts == 1 else 1.0
    return [
        Bound("most", most.value, most.error, at_most=limit),
        _mean(shares, at_most=mean),
    ]


def power_bounds(shares: Sequence[Share]) -> list[Bound]:
    """Hold the power at the promised point against 90 %."""
    (share,) = [share for share in shares if share.point == PROMISED]
    what = "n 200, 5 seeds, seed effect 0.05"
    return [Bound(what, share.value, share.error, at_least=0.9)]


def _mean(shares: Sequence[Share], **limits: float) -> Bound:
    value = float(np.mean([share.value for share in shares]))
    error = _error(value, sum(share.repeats for share in shares))
    return Bound("mean", value, error, **limits)


def _error(value: float, repeats: int) -> float:
    return math.sqrt(value * (1 - value) / repeats)


# --- the whole rule ----------------------------------------------------------------

FLIP, QUERY, CARRIED = 1.0, 1.0, 0.6
"""Mean dL of a gradient attack, of one without gradients and of what is carried over,
in nats/token."""
BEATEN = 0.5
"""Of them, what random search does."""
OWN_SD = 0.1
"""What each attack's dL varies by on its own."""
MARGIN = Margin(relative=0.1)
AT_ONCE_RUNS = 100
"""Runs that are judged side by side."""
DIRECTED = ("harder to attack", "easier to attack")
RULE_GRID = [
    point
    for point in GRID
    if point.n < 200 and point.seed_sd in (0.0, 0.1) and point.shape != "t3"
]
FEW_SEEDS = [Point(24, seeds, 0.1, 0.3, 0.2) for seeds in (1, 2)]

Change = Callable[[Floats, Floats], Floats]
"""What an arm makes of dL [runs, S, n] of an attack on the baseline arm, given the
differences that were drawn for it."""


def identical(harm: Floats, drawn: Floats) -> Floats:
    """Return an arm that differs by chance alone."""
    return harm + drawn


def halved(harm: Floats, drawn: Floats) -> Floats:
    """Return an arm that halves every dL."""
    return 0.5 * harm + drawn


def at_the_margin(harm: Floats, drawn: Floats) -> Floats:
    """Return an arm whose true difference is the margin's end."""
    return harm + drawn - MARGIN.parts[0] * FLIP


def run_of(
    point: Point, change: Change, arms: int, repeats: int, rng: np.random.Generator
) -> Findings:
    """Draw runs in which all is asked and passed, each of a baseline and other arms.

    The last arm is the baseline's replica, which differs from it by chance alone.
    """
    shape = (repeats, point.seeds, point.n)
    documents = 0.2 * rng.normal(size=(repeats, 1, point.n))
    means = {"flip": FLIP, "query": QUERY, "transfer": CARRIED}
    drawn = [tables(point, repeats, rng) for _ in range(arms)]
    none, others = np.zeros(shape), [f"arm{i}" for i in range(arms)]
    made = []
    for label, own, alters in [
        ("baseline", none, identical),
        *((label, own, change) for label, own in zip(others, drawn, strict=True)),
        ("replica", tables(point, repeats, rng), identical),
    ]:
        harm = {
            attack: alters(mean + documents + OWN_SD * rng.normal(size=shape), own)
            for attack, mean in means.items()
        }
        made.append(_arm_of(label, harm, others))
    return Findings(
        suite="simulated",
        diagnostics="full",
        margin=MARGIN,
        models={"m": Model("m", 1000, [str(i) for i in range(point.n)])},
        attacks={attack.label: attack for attack in _attacks()},
        arms=made,
    )


def _attacks() -> Iterator[Attack]:
    for label, gradients in (("flip", True), ("query", False)):
        free = f"{label}-unbounded"
        yield Attack(label, gradients=gradients)
        yield Attack(free, "unbounded", gradients=gradients, of=label)
        for name in (label, free):
            yield Attack(f"{name}-random", "control", of=name, shows="search")
    yield Attack("flip-permuted", "control", of="flip", shows="gradient")
    yield Attack("transfer", "transfer")


def _arm_of(label: str, harm: Mapping[str, Floats], others: Sequence[str]) -> Arm:
    seeds, n = harm["flip"].shape[1:]
    reference = None if label == "baseline" else "baseline"
    sources = others if reference is None else ["baseline"]
    found = {name: _cell_of(rows) for name, rows in harm.items()}
    for attack in _attacks():
        if attack.role == "unbounded":
            found[attack.label] = found[attack.of or ""]
        elif attack.role == "control":
            searched = (attack.of or "").removesuffix("-unbounded")
            found[attack.label] = _cell_of(harm[searched] - BEATEN)
    carried = dict.fromkeys(sources, harm["transfer"])
    found["transfer"] = replace(found["transfer"], sources=carried)
    keys = [str(i) for i in range(20)]
    values: dict[DiagnosticId, float] = {
        "determinism": 0.0,
        "gradient_health": 0.0,
        "gradient_truth": 0.01,
        "first_order_fidelity": 0.4,
    }
    planted = np.zeros(100)
    units = [str(i) for i in range(len(planted))]
    kinds: tuple[PlantKind, ...] = ("token", "ffn")
    clean = np.zeros((seeds, 2))
    return Arm(
        model="m",
        label=label,
        reference=reference,
        role="replica" if label == "replica" else "treatment",
        seeds=tuple(range(seeds)),
        clean=np.zeros((seeds, n)),
        cells=found,
        examined={
            name: Examined(keys, keys, np.full((seeds, len(keys)), value))
            for name, value in values.items()
        },
        plants=[
            Plant(kind, 0.0, units, planted, planted, {"flip": planted})
            for kind in kinds
        ],
        matches=[Matched("baseline", "reference", ["0", "1"], clean, clean)],
        replayed=[Replayed(name, 0.0) for name in found],
    )


def _cell_of(rows: Floats) -> Cell:
    """Return a cell whose attack has done at a quarter what it does at all."""
    delta = np.broadcast_to(rows[..., None], (*rows.shape, len(SHARES)))
    there = np.ones(rows.shape[-2], dtype=bool)
    return Cell(delta, there, flops=1e6 * np.array(SHARES))


def words_of(findings: Findings, repeats: int) -> list[list[Word]]:
    """Return what the rule calls each arm but the baseline and its replica."""
    cases = [x for x in Cases(findings).of("treatment") if x.arm.reference is not None]
    return [[decide(case, run).word for case in cases] for run in range(repeats)]


def judge_runs(
    says: Callable[[Sequence[Word]], bool],
    change: Change,
    arms: int,
    points: Sequence[Point],
    repeats: int,
    jobs: int = 1,
) -> list[Share]:
    """Count in how many runs of each point the words of all arms are such."""
    parts = [
        (index, first, min(AT_ONCE_RUNS, repeats - first))
        for index in range(len(points))
        for first in range(0, repeats, AT_ONCE_RUNS)
    ]
    counts = [0] * len(points)
    count = partial(_count_runs, says, change, arms, points)
    for (index, _, _), said in zip(parts, _spread(count, parts, jobs), strict=True):
        counts[index] += said
    return [Share(*pair, repeats) for pair in zip(points, counts, strict=True)]


def _count_runs(
    says: Callable[[Sequence[Word]], bool],
    change: Change,
    arms: int,
    points: Sequence[Point],
    part: tuple[int, int, int],
) -> int:
    index, first, repeats = part
    rng = np.random.default_rng([SEED, index, first])
    findings = run_of(points[index], change, arms, repeats, rng)
    return sum(says(words) for words in words_of(findings, repeats))


def directed(words: Sequence[Word]) -> bool:
    """Say whether any arm is called harder or easier to attack."""
    return any(word in DIRECTED for word in words)


def masked(words: Sequence[Word]) -> bool:
    """Say whether any arm is called gradient-masked."""
    return "gradient-masked" in words


def equivalent(words: Sequence[Word]) -> bool:
    """Say whether any arm is called equivalent."""
    return "equivalent" in words


def most(shares: Sequence[Share], at_most: float, slack: float = 2.0) -> list[Bound]:
    """Hold the largest share against a limit, and some standard errors of it."""
    worst = max(shares, key=lambda share: share.value)
    limit = at_most + slack * _error(at_most, worst.repeats)
    return [Bound("most", worst.value, worst.error, at_most=limit), _mean(shares)]


# --- what is printed ---------------------------------------------------------------


def show(title: str, shares: Sequence[Share], bounds: Sequence[Bound]) -> None:
    """Print a row for each design, a column for each population, and the bounds."""
    columns = list(dict.fromkeys(map(_population, shares)))
    rows: dict[tuple[Any, ...], dict[str, str]] = {}
    for share in shares:
        point = share.point
        row = rows.setdefault((point.n, point.seeds, point.seed_sd), {})
        row[_population(share)] = f"{100 * share.value:.2f}"
    body = [[*key, *(row[column] for column in columns)] for key, row in rows.items()]
    headers = ["n", "seeds", "seed\neffect", *columns]
    click.echo(f"\n{title}: %, of {shares[0].repeats:,} tables each\n")
    click.echo(tabulate(body, headers, disable_numparse=True, stralign="right"))
    click.echo()
    click.echo(tabulate([*map(_line, bounds)], ["", "%", "SE", "must be", ""]))


def _population(share: Share) -> str:
    point = share.point
    return f"{point.shape}\n{point.document_sd:g}, {point.residual_sd:g}"


def _line(bound: Bound) -> list[str]:
    low, high = f"{100 * bound.at_least:.2f}", f"{100 * bound.at_most:.2f}"
    limits = [f"at least {low}"] * (bound.at_least > 0)
    limits += [f"at most {high}"] * (bound.at_most < 1)
    said = ("met" if bound.met else "not met") if limits else ""
    numbers = f"{100 * bound.value:.2f}", f"{100 * bound.error:.2f}"
    return [bound.what, *numbers, ", ".join(limits), said]


def conclude(out: Path | None, found: Mapping[str, Any]) -> None:
    """Print tables, write them as JSON, and exit with 1 if a bound is not met."""
    for title, (shares, bounds) in found.items():
        show(title, shares, bounds)
    if out is not None:
        written = {title: _jsonable(*each) for title, each in found.items()}
        out.write_text(json.dumps(written, indent=1) + "\n")
    sys.exit(not all(bound.met for _, bounds in found.values() for bound in bounds))


def _jsonable(shares: Sequence[Share], bounds: Sequence[Bound]) -> dict[str, Any]:
    return {
        "cells": [
            {**asdict(x.point), "repeats": x.repeats, "value": x.value, "se": x.error}
            for x in shares
        ],
        "bounds": [{**asdict(bound), "met": bound.met} for bound in bounds],
    }


# --- commands ----------------------------------------------------------------------


@click.group(help=__doc__)
def main() -> None:
    """Simulate what verdicts rest on."""


def command(function: Callable[..., None]) -> click.Command:
    """Make a command of the tables, with the options that all have."""
    for option in (
        click.option("--out", type=click.Path(path_type=Path), help="JSON to write."),
        click.option("--jobs", default=1, show_default=True, help="Processes."),
        click.option("--repeats", default=2000, show_default=True, help="A cell."),
    ):
        function = option(function)
    return main.command()(function)


@command
def coverage(repeats: int, jobs: int, out: Path | None) -> None:
    """How often the 95 % interval holds the true difference."""
    shares = simulate(covered, GRID, repeats, jobs)
    conclude(out, {"coverage": (shares, coverage_bounds(shares))})


@command
def false_harder(repeats: int, jobs: int, out: Path | None) -> None:
    """How often "harder" is said where there is no difference."""
    found = {}
    for contrasts in (1, CONTRASTS):
        says = partial(harder, contrasts=contrasts)
        shares = simulate(says, GRID, repeats, jobs)
        title = f'false "harder", nominal {100 * (1 - LEVEL) / contrasts:.2f} %'
        found[title] = (shares, false_bounds(shares, contrasts))
    conclude(out, found)


@command
def power(repeats: int, jobs: int, out: Path | None) -> None:
    """How often a true difference of -0.3 nats is found with six contrasts."""
    says = partial(harder, contrasts=CONTRASTS)
    shares = simulate(says, POWER, repeats, jobs)
    conclude(out, {'power of "harder"': (shares, power_bounds(shares))})


@command
def six_identical(repeats: int, jobs: int, out: Path | None) -> None:
    """How often any of six arms that do not differ gets a directional word."""
    shares = judge_runs(directed, identical, CONTRASTS, RULE_GRID, repeats, jobs)
    few = judge_runs(directed, identical, CONTRASTS, FEW_SEEDS, min(repeats, 50), jobs)
    found = {
        "directional words, six identical arms": (shares, most(shares, 0.05)),
        "the same of a treatment, fewer than three seeds": (few, most(few, 0.0)),
    }
    conclude(out, found)


@command
def false_masked(repeats: int, jobs: int, out: Path | None) -> None:
    """How often an arm is called gradient-masked that hides nothing."""
    found = {}
    for change in (identical, halved):
        shares = judge_runs(masked, change, 1, RULE_GRID, repeats, jobs)
        found[f"gradient-masked, an arm {change.__name__}"] = (
            shares,
            most(shares, 0.025),
        )
    conclude(out, found)


@command
def false_equivalent(repeats: int, jobs: int, out: Path | None) -> None:
    """How often an arm is called equivalent whose difference is the margin."""
    shares = judge_runs(equivalent, at_the_margin, 1, RULE_GRID, repeats, jobs)
    conclude(out, {"equivalent, at the margin": (shares, most(shares, 0.05))})


if __name__ == "__main__":
    main()
