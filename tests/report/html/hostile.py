"""A run in which every text is an attack on whoever reads the report."""

import shutil
from dataclasses import replace

import numpy as np
from tokenizers import Tokenizer, models

from harness import report
from harness.report.content import Column, Label, Missing, Table
from harness.report.html import samples
from harness.running.surveying import survey
from tests.run_fixtures import Story, read_all

HOSTILE = (
    "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned=2'>"
    "<svg onload=window.pwned=3> {{ 7*7 }} \x1b[2J \u202egnp.exe\u2066 \u200b"
)
WORD = "<b>w\u202e</b>"
"""What token number N stands for, N behind it."""
MOST = 5000
COURSE = [{"step": n, "loss": 2 + n**0.5, "passes": 5 * n} for n in range(1, 9)]
LONG, SCORED = 128, 64
"""Tokens of a prompt and of a reference, in samples that fill the page."""


def hostile_report(written_runs, folder):
    """Return a report of a run whose names, texts and tokens are hostile."""
    run = folder / "run"
    shutil.copytree(written_runs(Story()), run)
    words = {f"{WORD}{i}": i for i in range(1000)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=f"{WORD}0"))
    for record in read_all(run):
        if record.kind == "variant":
            (run / "variants" / record.id / "model").mkdir()
            tokenizer.save(str(run / "variants" / record.id / "model/tokenizer.json"))
    built = report.build(survey(run))
    column = Column(HOSTILE, Label, HOSTILE)
    row = [Label("a"), Label(HOSTILE, alarm=True), Missing(HOSTILE)]
    table = Table("hostile", HOSTILE, [Column("a", Label), column, column], [row], "")
    return replace(
        built,
        facts=[*built.facts, ("fact", HOSTILE)],
        warnings=[HOSTILE, *built.warnings],
        tables=[*built.tables, replace(table, caption=HOSTILE, notes=[HOSTILE])],
        provenance=[*built.provenance, ("fact", HOSTILE)],
    )


def many(results):
    """Return as many long samples as a page holds, of the rows that there are."""
    found = samples.worst(results).rows
    rng = np.random.default_rng(7)
    clean = rng.integers(900, size=(MOST, LONG)).tolist()
    reference = rng.integers(1000, size=(MOST, SCORED)).tolist()
    losses = rng.exponential(3.0, size=(MOST, 2, SCORED)).tolist()
    rows = []
    for i in range(MOST):
        record, row = found[i % len(found)]
        after = [*clean[i][:-1], 999] if row.delta_loss else clean[i]
        told = {
            "clean_prompt_ids": clean[i],
            "adversarial_prompt_ids": after,
            "reference_ids": reference[i],
            "clean_token_losses": losses[i][0],
            "adversarial_token_losses": losses[i][1],
            "adversarial_text": HOSTILE,
            "trace": COURSE,
        }
        rows.append((record, row.model_copy(update=told)))
    return samples.Worst(rows, 12345)
