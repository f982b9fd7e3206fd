"""What a design will find, from the components of simulated pilots."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from harness.base import UsageError
from harness.records import Crossed
from harness.verdicts.findings import Cell
from harness.verdicts.power import Planned, foresee
from tests.verdicts.simulated import flawless

PLANNED = Planned("m", "treated", "baseline", 4, 100)


def pilot(seeds=5, n=24, seed_sd=0.1, label="treated"):
    """Return a run whose arm differs from the baseline by a drawn table, and this."""
    rng = np.random.default_rng(3)
    table = 0.1 * rng.normal(size=n) + 0.05 * rng.normal(size=(seeds, n))
    table += seed_sd * rng.normal(size=(seeds, 1)) - 0.4
    findings = flawless(seeds=seeds, n=n)
    cells = {}
    for name in ("baseline", "treated"):
        delta = np.ones((seeds, n, 4)) + (name == "treated") * table[..., None]
        cells[name] = {"flip": Cell(delta, np.ones(seeds, dtype=bool))}
    arms = [
        replace(arm, cells=cells[arm.label])
        for arm in findings.arms
        if arm.label in cells
    ]
    arms[1] = replace(arms[1], label=label)
    return replace(findings, arms=arms), table


def test_it_is_what_the_pilots_table_says_at_holms_first_step():
    findings, table = pilot()
    crossed = Crossed.of(table)
    level = 1 - 0.01 / 2
    one, two = foresee(findings, [PLANNED, replace(PLANNED, seeds=8)])
    assert [(x.seeds, x.documents) for x in one.found] == [
        (seeds, documents) for seeds in (3, 4, 5, 8) for documents in (100, 200, 400)
    ]
    assert [x.seeds for x in two.found] == [3] * 3 + [5] * 3 + [8] * 3
    for x in one.found:
        expected = crossed.detectable(level, 0.8, x.seeds, x.documents)
        assert x.difference == pytest.approx(expected)
        assert x.at_worst > x.difference
    sds = np.sqrt(crossed.components)
    assert (one.seed_sd, one.document_sd, one.residual_sd) == pytest.approx(sds)
    assert (one.pilot, one.pilot_seeds, one.pilot_documents) == (
        "treated - baseline",
        5,
        24,
    )
    assert one.reference_delta == pytest.approx(1.0)


@pytest.mark.parametrize("seed_sd", [0.1, 0.01])
def test_at_worst_seeds_vary_as_one_pilot_in_ten_would_still_show_as_little(seed_sd):
    """The bound covers the true variance of seeds in nine of ten pilots."""
    rng = np.random.default_rng(0)
    squares = 0.04 * scipy.stats.chi2.rvs(4, size=20_000, random_state=rng) / 4
    share = scipy.stats.chi2.ppf(0.1, 4) / 4
    assert np.mean(squares / share >= 0.04) == pytest.approx(0.9, abs=0.01)
    findings, table = pilot(seed_sd=seed_sd)
    crossed = Crossed.of(table)
    (found,) = foresee(findings, [PLANNED])
    (own,) = [x for x in found.found if (x.seeds, x.documents) == (5, 100)]
    # A pilot whose seeds' mean square is so much larger has that difference itself.
    mean = table.mean(1, keepdims=True)
    target = crossed.ms_seed / share
    wider = table + (np.sqrt(target / crossed.ms_seed) - 1) * (mean - table.mean())
    expected = Crossed.of(wider).detectable(0.99, 0.8, 5, 100)
    assert own.at_worst == pytest.approx(expected)


def test_documents_are_counted_as_units_of_the_pilot_are():
    findings, _ = pilot()
    units = [f"topic{i // 2}" for i in range(24)]
    models = {"m": replace(findings.models["m"], units=units)}
    (found,) = foresee(replace(findings, models=models), [PLANNED])
    assert [x.documents for x in found.found[:3]] == [50, 100, 200]
    assert found.pilot_documents == 12


def test_an_arm_that_the_pilot_lacks_varies_as_the_most_varied_one():
    findings, _ = pilot()
    wide, _ = pilot(seed_sd=0.5, label="wide")
    findings = replace(findings, arms=[*findings.arms, wide.arms[1]])
    new, known = foresee(findings, [replace(PLANNED, arm="new"), PLANNED])
    assert new.pilot == "wide - baseline"
    assert known.pilot == "treated - baseline"
    assert new.found[0].difference > known.found[0].difference


def test_one_seed_tells_nothing_of_treatments():
    findings, table = pilot(seeds=1)
    (found,) = foresee(findings, [replace(PLANNED, seeds=1)])
    assert found.seed_sd is None
    alone = [x for x in found.found if x.seeds == 1]
    assert [x.difference for x in found.found if x.seeds > 1] == [None] * 9
    expected = Crossed.of(table).detectable(0.99, 0.8, 1, 100)
    assert alone[0].difference == alone[0].at_worst == pytest.approx(expected)


def test_a_run_without_a_contrast_is_no_pilot():
    findings, _ = pilot()
    with pytest.raises(UsageError, match="no contrast to read a variance from"):
        foresee(replace(findings, arms=findings.arms[:1]), [PLANNED])


def test_a_pilot_of_one_document_is_none_and_one_of_two_is():
    with pytest.raises(UsageError, match="over two documents or more"):
        foresee(pilot(n=1)[0], [PLANNED])
    findings, table = pilot(n=2)
    (found,) = foresee(findings, [PLANNED])
    expected = Crossed.of(table).detectable(0.99, 0.8, 3, 100)
    assert found.found[0].difference == pytest.approx(expected)
    assert foresee(findings, []) == []


def test_two_documents_are_the_fewest_that_are_foreseen():
    findings, _ = pilot()
    (found,) = foresee(findings, [replace(PLANNED, examples=1)])
    assert [x.documents for x in found.found[:3]] == [2, 2, 4]


def test_two_seeds_tell_something_of_treatments():
    findings, table = pilot(seeds=2)
    (found,) = foresee(findings, [PLANNED])
    assert found.seed_sd == pytest.approx(np.sqrt(Crossed.of(table).components[0]))
    (own,) = [x for x in found.found if (x.seeds, x.documents) == (3, 100)]
    expected = Crossed.of(table).detectable(0.99, 0.8, 3, 100)
    assert own.at_worst > own.difference == pytest.approx(expected)


def test_of_two_models_the_planned_ones_own_pilot_is_taken():
    findings, _ = pilot()
    wide, _ = pilot(seed_sd=0.5)
    models = findings.models | {"n": replace(findings.models["m"], label="n")}
    arms = [*findings.arms, *(replace(arm, model="n") for arm in wide.arms)]
    both = replace(findings, models=models, arms=arms)
    for model, own in (("m", findings), ("n", wide)):
        (alone,) = foresee(own, [PLANNED])
        (found,) = foresee(both, [replace(PLANNED, model=model)])
        assert found.found == alone.found
