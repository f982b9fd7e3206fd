"""What stands in a contrast's tables: the worst of shared cells, errors, units."""

from dataclasses import replace

import numpy as np
import pytest

from harness.records.crossed import TREATMENT_SEEDS, Crossed
from harness.records.margin import Margin
from harness.verdicts.claims import of_run
from harness.verdicts.contrast import Contrast
from harness.verdicts.findings import Arm, Attack, Cell, Findings, Model
from harness.verdicts.losses import FULL, Losses, Part, averaged

SEEDS, N, VOCABULARY = 4, 6, 50


def made(cells, attacks=(), units=None, seeds=SEEDS, clean=3.0):
    """Return findings of two arms with such cells, by arm and attack."""
    known = {x.label: x for x in attacks}
    labels = dict.fromkeys(label for _, label in cells)
    arms = [
        Arm(
            model="m",
            label=name,
            reference=reference,
            seeds=tuple(range(seeds)),
            clean=np.full((seeds, N), clean),
            cells={label: x for (arm, label), x in cells.items() if arm == name},
        )
        for name, reference in (("baseline", None), ("arm", "baseline"))
    ]
    return Findings(
        suite="s",
        diagnostics="full",
        margin=Margin(relative=0.1),
        models={"m": Model("m", VOCABULARY, units or [str(i) for i in range(N)])},
        attacks={label: known.get(label, Attack(label)) for label in labels},
        arms=arms,
    )


def cell(rng, seeds=SEEDS, errors=(), missing=(), **more):
    delta = rng.uniform(0.1, 1.0, (seeds, N, 4))
    for place in errors:
        delta[place] = np.nan
    there = np.array([seed not in missing for seed in range(seeds)])
    delta[~there] = np.nan
    return Cell(delta, there, **more)


def contrast(findings):
    return Contrast(Losses(findings), findings.arms[1], findings.arms[0])


def both(rng, **cells):
    """Return a cell of each attack on both arms."""
    return {
        (arm, label): cell(rng, **more)
        for label, more in cells.items()
        for arm in ("baseline", "arm")
    }


def test_the_worst_is_taken_within_a_seed_over_what_both_arms_have():
    rng = np.random.default_rng(1)
    cells = both(rng, a={}, b={}) | {
        ("arm", "b"): cell(rng, missing=[2]),
        ("arm", "alone"): cell(rng),
        ("baseline", "late"): cell(rng, missing=[0, 1, 2]),
        ("arm", "late"): cell(rng),
    }
    found = contrast(made(cells)).tables
    expected = np.empty((SEEDS, N, 4))
    for seed in range(SEEDS):
        labels = ["a", *["b"] * (seed != 2), *["late"] * (seed == 3)]
        ours, theirs = (
            np.max([cells[arm, x].delta[seed] for x in labels], axis=0)
            for arm in ("arm", "baseline")
        )
        expected[seed] = ours - theirs
    assert found == pytest.approx(expected)


def test_controls_and_transfers_are_of_the_endpoint_and_nothing_else_is():
    rng = np.random.default_rng(2)
    attacks = [
        Attack("a", gradients=True),
        Attack("r", "control", of="a"),
        Attack("carried", "transfer"),
        Attack("replayed", "idle"),
        Attack("free", "unbounded", of="a"),
        Attack("free-r", "control", of="free"),
        Attack("tokens", "token-level", of="a"),
    ]
    cells = both(rng, **{x.label: {} for x in attacks})
    found = contrast(made(cells, attacks))
    assert found.shared.labels == ("a", "r", "carried")


@pytest.mark.parametrize("full", [True, False])
def test_what_has_the_first_examples_alone_is_compared_on_these(full):
    rng = np.random.default_rng(9)
    cells = both(rng, a={}, b={"errors": [(0, 1), (2, 3)]})
    cells["arm", "b"] = replace(cells["arm", "b"], delta=cells["arm", "b"].delta[:, :4])
    findings = made(cells, units=["x", "x", "y", "z", "z", "w"])
    arm, losses = findings.arms[1], Losses(findings)
    read = losses.read(Part(arm, "a", full=full), Part(arm, "b", full=full))
    assert read.units == ["x", "x", "y", "z"]
    whole, part = (cells["arm", x].delta[..., FULL] for x in "ab")
    harm = full_harm(cells) if full else 0.0
    assert read.rows[0] == pytest.approx(whole[:, :4])
    assert read.rows[1] == pytest.approx(np.where(np.isnan(part), harm, part))


def test_seeds_that_one_arm_lacks_are_left_out():
    rng = np.random.default_rng(3)
    cells = both(rng, a={}) | {("arm", "a"): cell(rng, missing=[1])}
    found = contrast(made(cells))
    assert (found.shared.seeds, found.seeds) == ((0, 2, 3), 3)
    assert found.tables.shape == (3, N, 4)


def full_harm(cells, clean=3.0):
    finite = max(np.nanmax(x.delta) for x in cells.values())
    return max(np.log(VOCABULARY) - clean, finite)


def worst(cells, arm, error=None):
    """Return dL under the worst of an arm's cells, errors as given or as no harm."""
    rows = np.array([x.delta for (name, _), x in cells.items() if name == arm])
    known = np.nan_to_num(rows, nan=-9).max(axis=0)
    instead = np.maximum(known, 0) if error is None else error
    return np.where(np.isnan(rows).any(axis=0), instead, known)


@pytest.mark.parametrize("clean", [0.5, 3.5])
def test_errors_count_against_what_is_claimed(clean):
    """A guess at random loses ln V; where less is left, the largest dL of the run."""
    rng = np.random.default_rng(4)
    cells = both(rng, a={}, b={})
    cells["arm", "a"] = cell(rng, errors=[(0, 1)])
    cells["baseline", "a"] = cell(rng, errors=[(2, 3)])
    cells["baseline", "b"] = cell(rng, errors=[(2, 3), (1, 5)])
    found = contrast(made(cells, clean=clean))
    harm = full_harm(cells, clean)
    difference = worst(cells, "arm", harm) - worst(cells, "baseline")
    assert found.tables == pytest.approx(difference)
    shown = [x.about.mean[0] for x in found.at_shares]
    assert shown == pytest.approx(difference.mean(axis=(0, 1)))
    # And for "easier", the other way round.
    exchanged = worst(cells, "baseline", harm) - worst(cells, "arm")
    assert found.easier.about.mean[0] == pytest.approx(exchanged[..., FULL].mean())
    assert found.errors == (1 / (SEEDS * N), 2 / (SEEDS * N))
    # What is shown of each side alone is what was found.
    baseline = worst(cells, "baseline")
    assert found.reference_harm == pytest.approx(baseline)
    assert found.attacked_reference == pytest.approx([clean + baseline[..., 3].mean()])
    for arm in found.arm, found.reference:
        own = worst(cells, arm.label)[..., 3].mean()
        assert found.worst_case(arm).mean == pytest.approx([own])


def test_an_error_at_one_budget_is_an_error_of_its_row():
    rng = np.random.default_rng(4)
    cells = both(rng, a={}, b={}) | {("arm", "a"): cell(rng, errors=[(0, 1, 2)])}
    assert contrast(made(cells)).errors == (1 / (SEEDS * N), 0.0)


@pytest.mark.parametrize("scale", [0.8, 1.2])
def test_errors_count_against_equivalence_at_either_end_of_the_margin(scale):
    rng = np.random.default_rng(12)
    base, noise = cell(rng, errors=[(2, 3)]), rng.normal(0, 0.05, (SEEDS, N, 4))
    own = scale * np.nan_to_num(base.delta, nan=0.5) + noise
    own[0, 1] = np.nan
    cells = {("baseline", "a"): base, ("arm", "a"): replace(base, delta=own)}
    harm, found = full_harm(cells), contrast(made(cells)).equivalent
    least = worst(cells, "arm") - 0.9 * worst(cells, "baseline", harm)
    most = worst(cells, "arm", harm) - 1.1 * worst(cells, "baseline")
    less, more = (Crossed.of(x[..., 3]) for x in (least, most))
    assert found.p[0] == pytest.approx(max(less.p_above(), more.p_below()))
    assert found.about.mean[0] == pytest.approx(more.mean)
    assert (less.p_above() > more.p_below()) is (scale < 1)


def test_an_unknown_clean_loss_leaves_all_of_a_uniform_guess():
    rng = np.random.default_rng(5)
    cells = both(rng, a={}) | {("arm", "a"): cell(rng, errors=[(0, 0)])}
    findings = made(cells)
    clean = findings.arms[1].clean.copy()
    clean[0, 0] = np.nan
    arms = [findings.arms[0], replace(findings.arms[1], clean=clean)]
    found = contrast(replace(findings, arms=arms))
    expected = np.log(VOCABULARY) - cells["baseline", "a"].delta[0, 0]
    assert found.tables[0, 0] == pytest.approx(expected)
    assert found.clean[0] == pytest.approx(3.0)  # of what is known


def test_examples_of_a_unit_are_one():
    rng = np.random.default_rng(6)
    rows = rng.uniform(size=(2, 3, 5))
    units = ["b", "a", "b", "c", "a"]
    expected = np.stack(
        [rows[..., [1, 4]].mean(-1), rows[..., [0, 2]].mean(-1), rows[..., 3]], axis=-1
    )
    assert averaged(rows, units) == pytest.approx(expected)
    assert averaged(rows, list("abcde")) == pytest.approx(rows)
    cells = both(rng, a={})
    found = contrast(made(cells, units=["x", "x", "y", "y", "z", "z"]))
    own = (cells["arm", "a"].delta - cells["baseline", "a"].delta).reshape(4, 3, 2, 4)
    assert found.tables == pytest.approx(own.mean(axis=2))
    assert found.shown.n == 3


# --- universal attacks --------------------------------------------------------------


def universal(rng, seeds, searches, **more):
    others = rng.uniform(0.1, 1.0, (seeds, searches - 1, N)) if searches > 1 else None
    return cell(rng, seeds, replicates=others, **more)


UNIVERSAL = [Attack("a"), Attack("u", universal=True)]


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_a_search_for_all_examples_is_no_unit_of_few_seeds(seeds):
    rng = np.random.default_rng(7)
    cells = {
        (arm, label): universal(rng, seeds, 2 if label == "u" else 1)
        for arm in ("arm", "baseline")
        for label in "au"
    }
    found = contrast(made(cells, UNIVERSAL, seeds=seeds))
    labels = ("a", "u") if seeds >= TREATMENT_SEEDS else ("a",)
    assert found.shared.labels == labels
    # It enters with its first search alone.
    ours, theirs = (
        np.max([cells[arm, x].delta for x in labels], axis=0)
        for arm in ("arm", "baseline")
    )
    assert found.tables == pytest.approx(ours - theirs)


def read(cells, seeds, *attacks, share=FULL):
    findings = made(cells, UNIVERSAL, seeds=seeds)
    parts = [Part(findings.arms[1], x, full=False, share=share) for x in attacks]
    return Losses(findings).read(*parts)


def test_of_enough_seeds_one_search_each_is_enough():
    rng = np.random.default_rng(8)
    cells = {("arm", "u"): universal(rng, 3, 1)}
    found = read(cells, 3, "u")
    assert found.rows[0] == pytest.approx(cells["arm", "u"].delta[..., FULL])
    assert found.searches == 1


@pytest.mark.parametrize("seeds", [1, 3])
def test_beside_a_smaller_budget_one_search_is_compared(seeds):
    rng = np.random.default_rng(8)
    findings = made({("arm", "u"): universal(rng, seeds, 3)}, UNIVERSAL, seeds=seeds)
    parts = [Part(findings.arms[1], "u", full=False, share=x) for x in (FULL, 1)]
    found = Losses(findings).read(*parts)
    if seeds < TREATMENT_SEEDS:
        assert found == "one search for all examples at one seed has no interval"
    else:
        assert found.searches == 1


def test_searches_are_averaged_within_a_seed():
    rng = np.random.default_rng(8)
    cells = {("arm", "u"): universal(rng, 3, 4), ("arm", "a"): cell(rng, 3)}
    found = read(cells, 3, "u", "a")
    own = cells["arm", "u"]
    every = np.concatenate([own.delta[:, None, :, FULL], own.replicates], axis=1)
    assert found.rows[0] == pytest.approx(every.mean(axis=1))
    assert found.rows[1] == pytest.approx(cells["arm", "a"].delta[..., FULL])
    assert (found.seeds, found.searches) == (3, 4)
    claim = found.above(found.rows[0])
    assert (claim.seeds, claim.searches, claim.about.S) == (3, 4, 3)
    # Of smaller budgets there is the first search alone.
    assert read(cells, 3, "u", share=0).rows[0] == pytest.approx(own.delta[..., 0])


@pytest.mark.parametrize(("seeds", "searches"), [(1, 3), (2, 2), (1, 2), (2, 1)])
def test_at_few_seeds_each_search_is_a_row_or_there_are_too_few(seeds, searches):
    rng = np.random.default_rng(9)
    cells = {
        ("arm", "u"): universal(rng, seeds, searches),
        ("arm", "a"): cell(rng, seeds),
    }
    found = read(cells, seeds, "u", "a")
    if seeds * searches < TREATMENT_SEEDS:
        assert found == "one search for all examples at one seed has no interval"
        return
    own = cells["arm", "u"]
    every = np.concatenate([own.delta[:, None, :, FULL], own.replicates], axis=1)
    assert found.rows[0] == pytest.approx(every.reshape(-1, N))
    beside = np.repeat(cells["arm", "a"].delta[..., FULL], searches, axis=0)
    assert found.rows[1] == pytest.approx(beside)
    assert isinstance(read(cells, seeds, "u", share=1), str)
    assert read(cells, seeds, "a").rows[0].shape == (seeds, N)


@pytest.mark.parametrize(("seeds", "searches"), [(1, 3), (2, 2), (3, 2)])
def test_many_runs_are_read_at_once_as_each_alone(seeds, searches):
    rng = np.random.default_rng(9)
    alone = [
        {("arm", "u"): universal(rng, seeds, searches), ("arm", "a"): cell(rng, seeds)}
        for _ in range(4)
    ]
    together = {
        key: replace(
            alone[0][key],
            delta=np.stack([cells[key].delta for cells in alone]),
            replicates=None
            if alone[0][key].replicates is None
            else np.stack([cells[key].replicates for cells in alone]),
        )
        for key in alone[0]
    }
    found = read(together, seeds, "u", "a").rows
    for run, cells in enumerate(alone):
        for rows, expected in zip(
            found, read(cells, seeds, "u", "a").rows, strict=True
        ):
            assert rows[run] == pytest.approx(expected)


def test_as_many_searches_are_read_as_all_attacks_have():
    rng = np.random.default_rng(10)
    cells = {("arm", "u"): universal(rng, 1, 5), ("arm", "v"): universal(rng, 1, 3)}
    findings = made(cells, [*UNIVERSAL, Attack("v", universal=True)], seeds=1)
    parts = [Part(findings.arms[1], x, full=False) for x in "uv"]
    assert [x.shape for x in Losses(findings).read(*parts).rows] == [(3, N)] * 2


def test_parts_are_read_over_the_seeds_that_all_have():
    rng = np.random.default_rng(11)
    cells = both(rng, a={}) | {("arm", "a"): cell(rng, missing=[0, 3])}
    findings = made(cells)
    baseline, arm = findings.arms
    losses = Losses(findings)
    found = losses.read(*(Part(x, "a", full=False) for x in (arm, baseline)))
    assert found.rows[1] == pytest.approx(cells["baseline", "a"].delta[1:3, :, FULL])
    assert losses.read(Part(arm, "b", full=False)) == "b is not complete on arm"
    none = replace(arm, cells={"a": cell(rng, missing=range(SEEDS))})
    parts = [Part(none, "a", full=False), Part(baseline, "a", full=False)]
    assert losses.read(*parts) == "no seed has all that is compared"


@pytest.mark.parametrize("full", [True, False])
def test_an_error_that_is_read_stands_for_full_harm_or_none(full):
    rng = np.random.default_rng(12)
    cells = {("arm", "a"): cell(rng, errors=[(0, 1)])}
    findings = made(cells, clean=np.linspace(1.0, 3.0, N))
    harm = full_harm(cells, clean=1.4)
    (rows,) = Losses(findings).read(Part(findings.arms[1], "a", full=full)).rows
    assert rows[0, 1] == pytest.approx(harm if full else 0.0)


@pytest.mark.parametrize(("clean", "harm"), [(3.5, np.log(50) - 3.5), (4.5, 0.0)])
def test_where_nothing_was_measured_full_harm_is_a_uniform_guess(clean, harm):
    rng = np.random.default_rng(12)
    findings = made({("arm", "a"): cell(rng, missing=range(SEEDS))}, clean=clean)
    found = Losses(findings).full_harm(findings.arms[1])
    assert found == pytest.approx(np.full((SEEDS, N), harm))


@pytest.mark.parametrize(
    ("values", "run", "expected"),
    [([3.0], 0, 3.0), ([3.0], 7, 3.0), ([3.0, 5.0], 1, 5.0), ([3.0, 5.0, 8.0], 2, 8.0)],
)
def test_what_all_runs_have_in_common_is_there_once(values, run, expected):
    assert of_run(np.array(values), run) == expected
