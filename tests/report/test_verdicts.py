"""Verdicts in words and tables: what is said beside each, and what is not."""

from dataclasses import replace

import pytest
from statsmodels.stats.proportion import proportion_confint

from harness.records.verdicts import Calibration
from harness.report.tables.beside import planted_tables
from harness.report.tables.verdicts import lines, paragraphs
from harness.running.surveying import survey
from harness.verdicts.judging import judge
from harness.verdicts.results import Results
from tests.verdicts.simulated import flawless


def judged(**changes):
    """Return the verdict on the arm of a simulated run."""
    (found,) = [x for x in judge(flawless(**changes)).arms if x.arm == "treated"]
    return found


def said(found):
    return "\n".join(paragraphs(found))


def test_a_verdict_names_contrast_scope_design_and_how_far_it_sees():
    found = judged()
    calibrated = Calibration(
        runs=100, words={"harder to attack": 0.01, "equivalent": 0.99}, harder_from=None
    )
    text = said(found.model_copy(update={"calibration": calibrated}))
    first, design, *reasons = text.splitlines()
    assert first == "m (treated) against baseline: harder to attack"
    low, high = found.difference.interval
    for part in (
        f"about the treatment: {found.difference.value:+.2f} [{low:+.2f}, {high:+.2f}]",
        "nats/token (95 %), 24 documents x 5 seeds, 1 search a seed",
        f"finds a true difference of {found.difference.detectable:.2g} in 80 %",
        "planted weaknesses are found from 0.3 on",
        "of equal clean loss: treated-matched",
        "without a difference, 1.0 % are called harder or easier",
    ):
        assert part in design
    assert low < found.difference.value < high < 0
    assert [line[:4] for line in reasons] == ["  - "] * len(found.reasons)


def test_few_seeds_speak_of_these_weights_alone():
    text = said(judged(seeds=2))
    assert "lower on these weights" in text
    assert "about these weights alone" in text


def test_undecided_says_which_design_would_decide():
    found = judged(scale=0.93, noise=0.4)
    assert (found.verdict, found.decided_by) == ("undecided", [])
    needed = found.difference.needed
    expected = f"{needed.documents} documents x {needed.seeds} seeds would decide"
    assert expected in said(found)


def test_a_single_seed_does_not_say_what_would_decide():
    found = judged(scale=0.93, noise=0.4, seeds=1)
    assert (found.verdict, found.difference.needed) == ("undecided", None)
    assert "a single seed says nothing of what would decide" in said(found)


def test_undecided_by_a_question_blames_no_design():
    run = flawless()
    arms = [
        replace(arm, plants=()) if arm.label == "treated" else arm for arm in run.arms
    ]
    (found,) = [x for x in judge(replace(run, arms=arms)).arms if x.arm == "treated"]
    assert (found.verdict, found.decided_by) == ("undecided", ["planted_weakness"])
    assert "would decide" not in said(found)
    assert "no detection limit is known" in said(found)


def test_a_terminal_gets_a_line_that_names_every_arm():
    shown = [x for x in lines(judge(flawless())) if x.startswith("verdict: ")]
    assert shown == [
        "verdict: m (baseline): reference",
        "verdict: m (treated) against baseline: harder to attack",
    ]


def test_planted_weaknesses_are_shown_by_kind_with_exact_intervals(make_run):
    results = Results(survey(make_run(seeds=[1])), 0.15)
    found = judged().model_copy(update={"model": "Pythia_1.4B", "arm": "monotone"})
    verdicts = judge(flawless()).model_copy(update={"arms": [found]})
    (table,) = planted_tables(results, verdicts)
    kinds = [(row[1].text, row[2].value) for row in table.rows]
    assert kinds == [
        (kind, strength)
        for kind in ("token", "ffn", "pair", "hidden")
        for strength in (0.3, 1.0, 3.0)
    ]
    expected = proportion_confint(32, 32, method="beta")
    for row in table.rows:
        assert [cell.value for cell in row[3:]] == [32, 32, 32, 1.0]
        assert row[6].interval == pytest.approx(expected)
    assert list(planted_tables(results, verdicts.model_copy(update={"arms": []}))) == []


@pytest.mark.parametrize("scale", [0.6, 1.5])
def test_both_arms_are_there_in_absolute_figures(scale):
    difference = judged(scale=scale).difference
    own, other = difference.sides
    assert own - other == pytest.approx(difference.value)
    assert own == pytest.approx(scale * other, rel=0.1)
