"""How far chance alone goes: the rule itself, on simulated runs of the same design.

A simulated arm is its reference arm and what is drawn besides: effects of seeds and of
documents, whose variances are drawn from their sampling distributions, and residuals of
the run's own. Nothing else is amiss with it. What becomes of it is decided by the very
rule that judges a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from harness.records import Calibration, Word
from harness.verdicts.case import Cases
from harness.verdicts.claims import of_run, summarised
from harness.verdicts.contrast import Contrast
from harness.verdicts.findings import (
    SHARES,
    Arm,
    Attack,
    Cell,
    Examined,
    Findings,
    Floats,
    Matched,
    Model,
    Plant,
    Replayed,
)
from harness.verdicts.levels import DIRECTION, POWER
from harness.verdicts.questions.planted import DECIDING
from harness.verdicts.rule import decide

RUNS = 2000
"""Simulated runs without a difference."""
TRIED = 400
"""Of them, the first so many are tried with several differences."""
AT_ONCE = 2**19
"""Runs are laid side by side up to so many numbers: more of them leave the caches."""
STEPS, STEP = 16, 1.1
"""How often the difference that is tried is raised, and by what factor."""
EASILY = 1e3
"""By so many nats is the control beaten."""
PLANTED = 100
"""Documents on which a weakness of no strength is found: a limit of 0."""
_SEED = 20240607
_ATTACK, _CONTROL = "worst", "beaten"
"""What stands for the worst of all attacks, and what is easily beaten."""
_ATTACKS = {
    _ATTACK: Attack(_ATTACK, limited=False),
    _CONTROL: Attack(_CONTROL, "control", of=_ATTACK, shows="search"),
}

Calibrations = dict[tuple[str, str], Calibration]
"""By model and arm."""


def calibrate(findings: Findings, runs: int = RUNS) -> Calibrations:
    """Return what becomes of arms that do not differ, and from where on they would.

    Only of contrasts with seeds enough to speak of a treatment: with fewer, nothing is
    known of how seeds vary.
    """
    if findings.diagnostics == "none":
        return {}
    known = [x for x in Cases(findings).family if x.of_treatment and x.shown.n > 1]
    if not known:
        return {}
    rng = np.random.default_rng(_SEED)
    words: list[list[Word]] = [[] for _ in known]
    harder_from: list[float | None] = []
    for start in range(0, runs, TRIED):
        # One part at a time: of many seeds and contrasts, all take gigabytes.
        drawn = [_drawn(x, min(TRIED, runs - start), rng) for x in known]
        if not harder_from:
            harder_from = [
                _harder_from(findings, contrast, own, len(known))
                for contrast, own in zip(known, drawn, strict=True)
            ]
        for own_words, part in zip(
            words, _words(findings, known, drawn, beside=0), strict=True
        ):
            own_words += part
    return {
        (contrast.arm.model, contrast.arm.label): Calibration(
            runs=runs, words=_shares(words[index]), harder_from=harder_from[index]
        )
        for index, contrast in enumerate(known)
    }


def _shares(words: Sequence[Word]) -> dict[Word, float]:
    return {word: count / len(words) for word, count in Counter(words).items()}


def _harder_from(
    findings: Findings, contrast: Contrast, drawn: Floats, contrasts: int
) -> float | None:
    """Return the smallest difference, in nats, that is called harder often enough.

    Of one arm, where none of the other contrasts shows anything. It is sought from
    where the upper bounds of enough runs, as they are drawn, reach no higher.
    """
    level = 1 - DIRECTION / contrasts
    shares = np.moveaxis(drawn, -1, 0)
    bounds = np.max([summarised(rows).upper(level) for rows in shares], axis=0)
    difference = float(np.quantile(bounds, POWER))
    for _ in range(STEPS):
        (words,) = _words(
            findings, [contrast], [drawn - difference], beside=contrasts - 1
        )
        if words.count("harder to attack") >= POWER * len(words):
            return difference
        difference *= STEP
    return None


def _words(
    findings: Findings,
    contrasts: Sequence[Contrast],
    drawn: Sequence[Floats],
    beside: int,
) -> list[list[Word]]:
    """Return what the arm of each contrast is called in each run that was drawn.

    `beside` more contrasts show nothing.
    """
    words: list[list[Word]] = [[] for _ in contrasts]
    step = max(1, AT_ONCE // max(x[0].size for x in drawn))
    for start in range(0, len(drawn[0]), step):
        some = [x[start : start + step] for x in drawn]
        cases = Cases(_simulated(findings, contrasts, some), beside)
        arms = [x for x in cases.judged if x.contrast is not None]
        for own, case in zip(words, arms, strict=True):
            own += [decide(case, run).word for run in range(len(some[0]))]
    return words


# --- what is simulated --------------------------------------------------------------


def _drawn(contrast: Contrast, runs: int, rng: np.random.Generator) -> Floats:
    """Draw differences [runs, S, units, 4] that are none on average."""
    shown, tables = contrast.shown, contrast.tables
    seeds, n = tables.shape[-3:-1]
    mean_squares = [
        of_run(square) * df / rng.chisquare(df, runs)
        for square, df in (
            (shown.ms_seed, seeds - 1),
            (shown.ms_document, n - 1),
            (shown.ms_residual, (seeds - 1) * (n - 1)),
        )
    ]
    of_seeds, of_documents, residual = mean_squares
    seed_sd = np.sqrt(np.maximum(of_seeds - residual, 0) / n)
    document_sd = np.sqrt(np.maximum(of_documents - residual, 0) / seeds)
    documents, residuals = _effects(tables.reshape(seeds, n, len(SHARES)))
    chosen = rng.integers(n, size=(runs, 1, n))
    rows, columns = (
        rng.integers(seeds, size=(runs, seeds, n)),
        rng.integers(n, size=(runs, seeds, n)),
    )
    drawn = (
        seed_sd[:, None, None] * rng.standard_normal((runs, seeds, 1))
        + document_sd[:, None, None] * documents[chosen]
    )
    scale = np.sqrt(residual)[:, None, None, None]
    return np.asarray(drawn[..., None] + scale * residuals[rows, columns])


def _effects(tables: Floats) -> tuple[Floats, Floats]:
    """Return effects of documents [n], and residuals [S, n, 4], of variance 1 at 2."""
    documents, by_seed = tables.mean(0), tables.mean(1)
    off = documents - documents.mean(0)
    rest = tables - documents - by_seed[:, None] + documents.mean(0)
    own, spread = off[:, -1], rest[..., -1].std()
    return own / (own.std() or 1.0), rest / (spread or 1.0)


def _simulated(
    findings: Findings, contrasts: Sequence[Contrast], drawn: Sequence[Floats]
) -> Findings:
    """Return a run of as many contrasts, in which every question is answered well."""
    models, arms = {}, []
    for index, (contrast, own) in enumerate(zip(contrasts, drawn, strict=True)):
        harm = contrast.reference_harm
        model = Model(str(index), 2, [str(unit) for unit in range(harm.shape[-2])])
        models[model.label] = model
        arms += [
            _arm(model.label, "reference", None, harm),
            _arm(model.label, "arm", "reference", _share_by_share(harm + own)),
        ]
    return Findings(
        suite=findings.suite,
        diagnostics="full",
        margin=findings.margin,
        models=models,
        attacks=_ATTACKS,
        arms=arms,
    )


def _share_by_share(rows: Floats) -> Floats:
    """Lay rows [..., 4] in memory so that each column is in one piece."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(rows, -1, 0)), 0, -1)


def _arm(model: str, label: str, reference: str | None, harm: Floats) -> Arm:
    seeds, n = harm.shape[-3:-1]
    there = np.ones(seeds, dtype=bool)
    found, units = np.zeros(PLANTED), [str(i) for i in range(PLANTED)]
    beaten = np.full((seeds, n, len(SHARES)), harm.min() - EASILY)
    match = Matched(
        "reference", "reference", ["0", "1"], np.zeros((seeds, 2)), np.zeros((seeds, 2))
    )
    return Arm(
        model=model,
        label=label,
        reference=reference,
        seeds=tuple(range(seeds)),
        clean=np.zeros((seeds, n)),
        cells={_ATTACK: Cell(harm, there), _CONTROL: Cell(beaten, there)},
        examined={"determinism": Examined([], [], np.zeros((seeds, 0)))},
        plants=[
            Plant(kind, 0.0, units, found, found, {_ATTACK: found}) for kind in DECIDING
        ],
        matches=[match],
        replayed=[Replayed(_ATTACK, 0.0)],
    )
