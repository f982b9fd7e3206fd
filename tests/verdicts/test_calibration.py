"""What chance alone does, by the rule itself on simulated runs."""

import weakref
from dataclasses import replace

import numpy as np
import pytest

from harness.records.crossed import Crossed
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


class Fixed:
    """Draws of a generator that are no surprise: every variance is as it was found."""

    def __init__(self):
        self.rng, self.dfs = np.random.default_rng(5), []
        self.drawn = []

    def chisquare(self, df, runs):
        self.dfs.append(df)
        return np.full(runs, float(df))

    def keep(self, values):
        self.drawn.append(values)
        return values

    def standard_normal(self, shape):
        return self.keep(self.rng.standard_normal(shape))

    def integers(self, high, size):
        return self.keep(self.rng.integers(high, size=size))


def test_a_drawn_difference_is_made_of_its_effects_by_hand():
    contrast = contrast_of(flawless(0.8, noise=0.2, n=20, seeds=4))
    contrast.tables += np.linspace(0, 0.5, 4)[:, None, None]  # of seeds
    contrast.tables += np.sin(np.arange(20))[:, None]  # of documents
    table, rng = contrast.tables[..., -1], Fixed()
    drawn = calibration._drawn(contrast, 2, rng)
    assert rng.dfs == [3, 19, 57]
    chosen, rows, columns, normal = rng.drawn
    of_seeds, of_documents, _ = Crossed.of(table).components
    by_document = table.mean(0)
    effect = (by_document - table.mean()) / by_document.std()
    rest = [
        contrast.tables[s, i]
        - contrast.tables[:, i].mean(0)
        - contrast.tables[s].mean(0)
        + contrast.tables.mean((0, 1))
        for s in range(4)
        for i in range(20)
    ]
    rest = np.reshape(rest, (4, 20, 4))
    rest *= np.sqrt(Crossed.of(table).ms_residual) / rest[..., -1].std()
    for run, s, i in np.ndindex(2, 4, 20):
        expected = (
            np.sqrt(of_seeds) * normal[run, s, 0]
            + np.sqrt(of_documents) * effect[chosen[run, 0, i]]
            + rest[rows[run, s, i], columns[run, s, i]]
        )
        assert drawn[run, s, i] == pytest.approx(expected)


def test_what_varies_by_nothing_is_drawn_as_nothing():
    contrast = contrast_of(flawless(0.8, noise=0.0))
    contrast.tables = np.full_like(contrast.tables, -0.2)
    drawn = calibration._drawn(contrast, 3, np.random.default_rng(1))
    assert drawn == pytest.approx(np.zeros((3, 5, 24, 4)))


def test_runs_are_drawn_in_parts_and_differences_tried_on_the_first(monkeypatch):
    parts, tried = [], []

    def drawn(contrast, runs, rng):
        parts.append(runs)
        return np.full((runs, 5, 24, 4), float(len(parts)))

    def words(findings, known, some, beside):
        assert beside == 0
        return [["broken"] * len(some[0])]

    monkeypatch.setattr(calibration, "TRIED", 20)
    monkeypatch.setattr(calibration, "_drawn", drawn)
    monkeypatch.setattr(calibration, "_words", words)
    monkeypatch.setattr(calibration, "_harder_from", lambda *x: tried.append(x) or 0.5)
    found = calibrate(flawless(0.8), 50)["m", "treated"]
    assert parts == [20, 20, 10]
    assert (found.runs, found.words, found.harder_from) == (50, {"broken": 1.0}, 0.5)
    ((_, _, first, contrasts),) = tried
    assert (first.shape[0], first.mean(), contrasts) == (20, 1.0, 1)


@pytest.mark.parametrize("contrasts", [1, 6])
@pytest.mark.parametrize(("steps", "often"), [(0, 4), (0, 5), (15, 4), (16, 4)])
def test_a_difference_is_raised_until_it_is_found_often_enough(
    monkeypatch, contrasts, steps, often
):
    """From where the upper bounds of four runs in five, over shares, are 0."""
    contrast = contrast_of(flawless(0.8))
    drawn = np.random.default_rng(3).normal(size=(5, 5, 24, 4)) * [1, 2, 1, 1]
    bounds = [
        max(Crossed.of(run[..., k]).upper(1 - 0.01 / contrasts) for k in range(4))
        for run in drawn
    ]
    start, asked = np.quantile(bounds, 0.8), []

    def words(findings, known, some, beside):
        asked.append((drawn - some[0]).mean())
        harder = often if len(asked) > steps else 3
        assert (known, beside) == ([contrast], contrasts - 1)
        return [["harder to attack"] * harder + ["undecided"] * (5 - harder)]

    monkeypatch.setattr(calibration, "_words", words)
    found = calibration._harder_from(None, contrast, drawn, contrasts)
    assert asked == pytest.approx(start * 1.1 ** np.arange(min(steps + 1, 16)))
    assert found == (pytest.approx(asked[-1]) if steps < 16 else None)


@pytest.mark.parametrize(("n", "known"), [(1, []), (2, [("m", "treated")])])
def test_a_single_document_is_not_calibrated(n, known):
    assert [*calibrate(flawless(0.8, n=n), 3)] == known


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
    assert calibration._words(findings, known, drawn, 0) == expected
    assert expected[0].count("harder to attack") == 3
    for at_once in (3 * drawn[0][0].size, 1):
        monkeypatch.setattr(calibration, "AT_ONCE", at_once)
        assert calibration._words(findings, known, drawn, 0) == expected


def test_simulated_runs_are_not_all_in_memory_at_once(monkeypatch):
    """Of hundreds of seeds, they would take gigabytes."""
    draw, drawn = calibration._drawn, []

    def noted(*arguments):
        found = draw(*arguments)
        drawn.append(weakref.ref(found))
        return found

    monkeypatch.setattr(calibration, "_drawn", noted)
    monkeypatch.setattr(calibration, "TRIED", 20)
    alive, say = [], calibration._words

    def counted(*arguments, **options):
        alive.append(sum(one() is not None for one in drawn))
        return say(*arguments, **options)

    monkeypatch.setattr(calibration, "_words", counted)
    calibrate(flawless(0.8, noise=0.2, n=12), runs=100)
    assert len(drawn) == 5
    assert max(alive) <= 2
