"""Findings by hand: a run in which all is asked and passed, to change at will."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.records.margin import Margin
from harness.verdicts.findings import (
    SHARES,
    Arm,
    Attack,
    Cell,
    Certificate,
    Examined,
    Findings,
    Matched,
    Model,
    Plant,
    Replayed,
)

S, N = 5, 24
ATTACKS = {
    x.label: x
    for x in (
        Attack("flip", gradients=True),
        Attack("flip-random", "control", of="flip", shows="search"),
        Attack("flip-permuted", "control", of="flip", shows="gradient"),
        Attack("query", limited=False),
        Attack("query-random", "control", of="query", shows="search"),
        Attack("flip-unbounded", "unbounded", gradients=True, of="flip"),
        Attack("flip-unbounded-random", "control", of="flip-unbounded", shows="search"),
        Attack("transfer", "transfer"),
    )
}
HARM = {
    "flip": 1.0,
    "flip-random": 0.6,
    "flip-permuted": 0.7,
    "query": 0.8,
    "query-random": 0.6,
    "flip-unbounded": 3.0,
    "flip-unbounded-random": 2.0,
    "transfer": 0.5,
}
"""Mean dL of each attack on the baseline arm, at the whole budget."""
GROWTH = np.array([0.85, 0.92, 0.97, 1.0])
"""Of it, what the shares of the budget reach."""


def rows(mean, rng, noise=0.05, seeds=S, n=N):
    """Return dL [S, n, 4] of one attack: the same noise at every share."""
    return (mean + noise * rng.standard_normal((seeds, n)))[..., None] * GROWTH


def cells(scale, rng, others=(), noise=0.05, seeds=S, n=N):
    """Return the cells of an arm whose dL are so many times those of the baseline."""
    found = {}
    for label, mean in HARM.items():
        delta = rows(scale * mean, rng, noise, seeds, n)
        found[label] = Cell(
            delta,
            there=np.ones(seeds, dtype=bool),
            flops=1e6 * np.array(SHARES),
            sources=dict.fromkeys(
                others if label == "transfer" else (), delta[..., -1]
            ),
        )
    return found


def examined(seeds=S):
    """Return answers of a healthy subject over 32 examples."""
    keys = [f"{at}/{i}" for at in ("clean", "attacked") for i in range(16)]
    units = [f"d{i % 16}" for i in range(32)]
    values = {
        "determinism": 0.0,
        "gradient_health": 0.0,
        "gradient_truth": 0.01,
        "first_order_fidelity": 0.4,
    }
    return {
        name: Examined(keys, units, np.full((seeds, 32), value))
        for name, value in values.items()
    }


def plants(strengths=(0.3, 1.0, 3.0)):
    """Return weaknesses of all kinds that `flip` finds on every document."""
    own = np.full(32, 0.7)
    return [
        Plant(
            kind,
            strength,
            [f"d{i}" for i in range(32)],
            own,
            own + strength,
            {"flip": own + strength, "query": own},
        )
        for kind in ("token", "ffn", "pair", "hidden")
        for strength in strengths
    ]


def arm(label, reference, scale, rng, others=(), noise=0.05, seeds=S, n=N, **changes):
    """Return an arm of which everything is known, and nothing is amiss."""
    made = cells(scale, rng, others, noise, seeds, n)
    found = Arm(
        model="m",
        label=label,
        reference=reference,
        seeds=tuple(range(seeds)),
        clean=np.full((seeds, n), 3.0),
        cells=made,
        certificates=[Certificate(False, 8, 8)] * seeds,
        examined=examined(seeds),
        plants=plants(),
        replayed=[Replayed(x, 1e-6) for x in made],
    )
    return replace(found, **changes)


def matched(label="treated-matched", apart=0.0, k=500, seeds=S):
    """Return a match whose clean loss is so far from the arm's."""
    loss = 3.0 + 0.1 * np.random.default_rng(5).standard_normal((seeds, k))
    return Matched(label, "reference", [f"v{i}" for i in range(k)], loss, loss - apart)


def flawless(scale=0.6, seed=0, noise=0.05, seeds=S, n=N, **changes):
    """Return a run whose arm `treated` has so many times the baseline's dL."""
    rng = np.random.default_rng(seed)
    match = arm("treated-matched", None, 1.0, rng, noise=noise, seeds=seeds, n=n)
    main = {label: match.cells[label] for label in ("flip", "query")}
    found = Findings(
        suite="simulated",
        diagnostics="full",
        margin=Margin(relative=0.1),
        models={"m": Model("m", 1000, [f"d{i}" for i in range(n)])},
        attacks=ATTACKS,
        arms=[
            arm("baseline", None, 1.0, rng, ["treated"], noise, seeds, n),
            arm(
                "treated",
                "baseline",
                scale,
                rng,
                ["baseline"],
                noise,
                seeds,
                n,
                matches=[matched(seeds=seeds)],
            ),
            replace(match, role="derived", cells=main),
        ],
    )
    return replace(found, **changes)


def changed(findings, label, **changes):
    """Return findings with one arm changed."""
    arms = [replace(x, **changes) if x.label == label else x for x in findings.arms]
    return replace(findings, arms=arms)


def edited(findings, label, attack, **changes):
    """Return findings with one cell changed."""
    cells = dict(findings.arm("m", label).cells)
    cells[attack] = replace(cells[attack], **changes)
    return changed(findings, label, cells=cells)


def scaled(findings, label, attack, factor):
    """Return findings with the dL of one cell multiplied."""
    delta = findings.arm("m", label).cells[attack].delta
    return edited(findings, label, attack, delta=delta * factor)


def without(findings, label, attack):
    """Return findings in which an arm lacks an attack's cells."""
    cells = dict(findings.arm("m", label).cells)
    del cells[attack]
    return changed(findings, label, cells=cells)


def lacking(findings, *labels):
    """Return findings of a suite without some attacks."""
    attacks = {x: y for x, y in findings.attacks.items() if x not in labels}
    return replace(findings, attacks=attacks)


def blurred(findings, seed, noise=0.1, higher=None):
    """Return findings with noise of its own on every row, and an error in every cell.

    It is in the same row at every share, and in another row of every cell. One share
    may be higher than it was.
    """
    rng = np.random.default_rng(seed)
    for each in findings.arms:
        cells = {}
        for place, (label, cell) in enumerate(each.cells.items()):
            delta = cell.delta + noise * rng.standard_normal(cell.delta.shape)
            if higher is not None:
                delta[..., higher] += noise
            seeds, n = delta.shape[:2]
            delta[(place + seed) % seeds, (7 * place + len(each.label)) % n] = np.nan
            sources = {
                x: rows + noise * rng.standard_normal(rows.shape)
                for x, rows in cell.sources.items()
            }
            for rows in sources.values():
                rows[seed % seeds, 3 + len(each.label)] = np.nan
            cells[label] = replace(cell, delta=delta, sources=sources)
        findings = changed(findings, each.label, cells=cells)
    return findings


def instead(findings, rows, full):
    """Return rows [S, n] with errors as full harm, or as none."""
    known = [x.delta for each in findings.arms for x in each.cells.values()]
    harm = max(np.log(1000) - 3.0, *(np.nanmax(x) for x in known))
    return np.where(np.isnan(rows), harm if full else 0.0, rows)


def rows_of(findings, label, attack, full, share=3):
    """Return dL [S, n] of a cell at a share, errors as full harm or as none."""
    delta = findings.arm("m", label).cells[attack].delta[..., share]
    return instead(findings, delta, full)
