"""What chance alone does, by the rule itself on simulated runs."""

from dataclasses import replace

import numpy as np
import pytest

from harness.verdicts import calibration
from harness.verdicts.calibration import calibrate
from harness.verdicts.case import Cases
from harness.verdicts.judging import judge
from tests.verdicts.simulated import flawless


def contrast_of(findings):
    (contrast,) = Cases(findings).family
    return contrast


def test_nothing_is_drawn_but_effects_of_the_sizes_that_were_found():
    """On average, that is: each run has variances of its own."""
    contrast = contrast_of(flawless(0.8, noise=0.2, n=30))
    runs = 2000
    drawn = calibration._drawn(contrast, runs, np.random.default_rng(1))
    assert drawn.shape == (runs, 5, 30, 4)
    means = drawn[..., -1].mean(axis=(1, 2))
    assert abs(means.mean()) < 4 * means.std() / np.sqrt(runs)
    shown = contrast.shown
    assert means.std() == pytest.approx(np.sqrt(shown.variance[0]), rel=0.35)
    spread = np.median(drawn[..., -1].std(axis=(1, 2)))
    assert spread == pytest.approx(contrast.tables[..., -1].std(), rel=0.1)


def test_arms_that_do_not_differ_are_seldom_told_apart():
    runs = 300
    findings = flawless(0.8, noise=0.3)
    found = calibrate(findings, runs)["m", "treated"]
    assert found.runs == runs
    assert sum(found.words.values()) == pytest.approx(1)
    directed = sum(found.words.get(f"{x} to attack", 0) for x in ("harder", "easier"))
    assert directed * runs <= 18  # 2 % of 300, and beyond it once in 10,000
    # From there on it would be called harder, in four runs of five.
    spread = float(np.sqrt(contrast_of(findings).shown.variance[0]))
    assert 2 * spread < found.harder_from < 8 * spread


def test_a_wide_margin_calls_them_equivalent():
    found = calibrate(flawless(0.8, noise=0.02), 50)["m", "treated"]
    assert found.words == {"equivalent": 1.0}
    # What is within the margin is not called harder, however surely it is there.
    assert found.harder_from > 0.08


def test_more_contrasts_need_larger_differences():
    findings = flawless(0.8, noise=0.3)
    contrast = contrast_of(findings)
    drawn = calibration._drawn(contrast, 200, np.random.default_rng(1))
    one, six = (calibration._harder_from(findings, contrast, drawn, k) for k in (1, 6))
    assert one < six


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_and_unasked_questions_are_not_calibrated(seeds):
    assert calibrate(flawless(0.8, seeds=seeds)) == {}


def test_without_diagnostics_nothing_is_calibrated():
    assert calibrate(flawless(0.8, diagnostics="none")) == {}


def test_the_words_of_many_runs_at_once_are_those_of_each_judged_alone(monkeypatch):
    """Also where some of them are laid side by side, and the last ones are few."""
    findings = flawless(0.8, noise=0.1)
    treated = findings.arm("m", "treated")
    findings = replace(findings, arms=[*findings.arms, replace(treated, label="other")])
    known = Cases(findings).family
    rng = np.random.default_rng(2)
    drawn = [calibration._drawn(contrast, 7, rng) for contrast in known]
    drawn[0][4:] -= 0.6  # these are called harder, the others not
    alone = [
        judge(
            calibration._simulated(findings, known, [x[run : run + 1] for x in drawn])
        )
        for run in range(7)
    ]
    words = [{(x.model, x.arm): x.verdict for x in each.arms} for each in alone]
    expected = [[each[model, "arm"] for each in words] for model in ("0", "1")]
    assert calibration._words(findings, known, drawn) == expected
    assert expected[0].count("harder to attack") == 3
    monkeypatch.setattr(calibration, "AT_ONCE", 3 * drawn[0][0].size)
    assert calibration._words(findings, known, drawn) == expected
