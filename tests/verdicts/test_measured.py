"""What two arms of a run differ by: the numbers of records, rows beside each other."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from harness.running import survey
from harness.verdicts import Results, findings_of
from harness.verdicts.compared import Difference, OverSeeds
from harness.verdicts.losses import Losses
from harness.verdicts.measured import (
    of_attack,
    of_metric,
    perplexity_change,
    under_each,
)
from harness.verdicts.results import Sums
from tests.run_fixtures import read_all
from tests.verdicts.by_hand import X, arms, number
from tests.verdicts.simulated import edited, flawless


def read(run):
    return Results(survey(run, (), trust=True), 0.15)


def arms_of(run):
    results = read(run)
    model = next(iter(results.suite.models))
    return [results.arm(model, label) for label in ("monotone", "baseline")]


@pytest.fixture
def run(make_run):
    return make_run(seeds=[1, 2, 3], documents=25)


def values(run, name):
    """Return an estimate of perplexity by arm, seed by seed."""
    found = [x for x in read_all(run) if x.kind == "variant"]
    return {
        arm: [x.results["perplexity"][name].value for x in found if x.arm.label == arm]
        for arm in ("monotone", "baseline")
    }


@pytest.mark.parametrize(
    "name", ["loss", "token_perplexity", "word_perplexity", "bits_per_byte"]
)
def test_differences_of_rows_are_those_of_the_records(run, name):
    known = values(run, name)
    ours, theirs = (np.array(known[arm]) for arm in ("monotone", "baseline"))
    gap = of_metric(*arms_of(run), ("perplexity", name))
    change = of_metric(*arms_of(run), ("perplexity", name), relative=True)
    assert isinstance(gap, Difference)
    assert (gap.units, gap.seeds) == (25, 3)
    assert gap.value == pytest.approx(np.mean(ours - theirs))
    assert change.value == pytest.approx(math.exp(np.mean(np.log(ours / theirs))) - 1)
    assert gap.sides == pytest.approx((ours.mean(), theirs.mean()))


def test_a_change_of_perplexity_is_that_of_its_loss(run):
    name = ("perplexity", "token_perplexity")
    change = of_metric(*arms_of(run), name, relative=True)
    found = perplexity_change(*arms_of(run), "perplexity", "loss")
    assert found.value == pytest.approx(change.value)
    assert found.interval() == pytest.approx(change.interval())


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("name", ["token_perplexity", "bits_per_byte"])
def test_documents_weigh_as_much_as_leaving_them_out_changes(run, name, relative):
    """The spread of rows is that of the jackknife, by another computation."""
    arm, other = arms_of(run)
    found = of_metric(arm, other, ("perplexity", name), relative=relative)
    sums = [x.results.terms(x.variants[1])["perplexity", name] for x in (arm, other)]

    def number(kept):
        ratios = [x.numerators[kept].sum() / x.denominators[kept].sum() for x in sums]
        shown = [math.exp(x) if "perplexity" in name else x for x in ratios]
        return math.log(shown[0] / shown[1]) if relative else shown[0] - shown[1]

    n = found.units
    left = np.array([number(np.arange(n) != i) for i in range(n)])
    pseudo = n * number(np.arange(n) >= 0) - (n - 1) * left
    assert found.most[0].std() == pytest.approx(pseudo.std(), rel=0.05)
    assert np.corrcoef(found.most[0], pseudo)[0, 1] > 0.999


@pytest.mark.parametrize("relative", [False, True])
def test_a_giant_among_documents_is_all_that_a_loss_tells(run, monkeypatch, relative):
    """Rows are the jackknife's pseudo-values, and tell no more than so few of them."""
    arm, other = arms_of(run)
    rng, name = np.random.default_rng(2), ("perplexity", "loss")
    tokens = np.array([5000.0, *rng.uniform(50, 150, 24)])
    sums = {}
    for record in (x for side in (arm, other) for x in side.variants.values()):
        nats = tokens * rng.uniform(2, 3, 25)
        sums[record.id] = Sums(tuple(map(str, range(25))), nats, tokens)
        told = {"value": nats.sum() / tokens.sum()}
        known = record.results["perplexity"]
        known["loss"] = known["loss"].model_copy(update=told)
    monkeypatch.setattr(arm.results, "terms", lambda x: {name: sums[x.id]})
    found = of_metric(arm, other, name, relative=relative)

    def number(record, kept):
        ratio = sums[record.id].numerators[kept].sum() / tokens[kept].sum()
        return ratio

    def pseudo(record):
        every = number(record, np.arange(25) >= 0)
        left = np.array([number(record, np.arange(25) != i) for i in range(25)])
        values = 25 * every - 24 * left
        return (values - values.mean()) / (every if relative else 1)

    wanted = pseudo(arm.variants[2]) - pseudo(other.variants[2])
    assert found.most[1] - found.most[1].mean() == pytest.approx(wanted)
    assert found.effective == pytest.approx(tokens.sum() ** 2 / (tokens**2).sum())
    assert found.effective < 3


def test_shares_that_agree_everywhere_are_not_certain(run, monkeypatch):
    arm, other = arms_of(run)
    right = Sums(tuple(map(str, range(25))), np.ones(25), np.ones(25))
    name = ("perplexity", "loss")
    monkeypatch.setattr(arm.results, "terms", lambda record: {name: right})
    for record in (x for side in (arm, other) for x in side.variants.values()):
        record.results["perplexity"]["loss"] = record.results["perplexity"][
            "loss"
        ].model_copy(update={"value": 1.0, "unit": "fraction"})
    low, high = of_metric(arm, other, name).interval()
    assert low < -0.05
    assert high > 0.05


def test_many_rows_of_few_seeds_are_grouped(make_run):
    run = make_run(seeds=[1], documents=1203)
    found = of_metric(*arms_of(run), ("perplexity", "loss"))
    known = values(run, "loss")
    assert found.value == pytest.approx(known["monotone"][0] - known["baseline"][0])
    assert (found.units, found.most.shape) == (1203, (1, 500))
    assert found.most.mean() == pytest.approx(found.value)
    one = found.most.std(ddof=1) / math.sqrt(500)
    low, high = found.interval()
    assert high - low == pytest.approx(2 * 1.96 * one, rel=0.05)


@pytest.mark.parametrize("seeds", [2, 3])
def test_without_rows_that_pair_values_are_paired_by_seed(make_run, seeds):
    run = make_run(seeds=[*range(seeds)], documents=25)
    arm, other = arms_of(run)
    paired = of_metric(arm, other, ("perplexity", "loss"))
    folder = arm.results.survey.folder.unit_dir("variant", arm.variants[0].id)
    samples = folder / "samples.jsonl"
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    lines[0]["document_id"] = "another"
    samples.write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    found = of_metric(*arms_as_they_were(run, arm), ("perplexity", "loss"))
    assert isinstance(found, OverSeeds)
    assert found.value == pytest.approx(paired.value)
    assert found.error > 0


def arms_as_they_were(run, arm):
    """Return both arms, whatever became of samples since records were read."""
    model, results = arm.model, arm.results
    results._terms.clear()
    return [results.arm(model, label) for label in ("monotone", "baseline")]


def test_a_number_that_is_not_there_is_said(run):
    found = of_metric(*arms_of(run), ("perplexity", "lozz"))
    assert found.startswith("a record has no number 'lozz' of perplexity (there are: ")


def test_success_is_that_of_rows(run):
    arm, other = arms_of(run)
    losses = Losses(findings_of(arm.results))
    found = of_attack(losses, arm, other, "hotflip", threshold=0.15)
    rates = [
        np.mean(
            [row.delta_loss > math.log(1.15) for cell in cells for row in cell.rows]
        )
        for cells in (x.cells("hotflip").values() for x in (arm, other))
    ]
    assert found.sides == pytest.approx(rates)
    assert found.value == pytest.approx(1 - rates[0] / rates[1])
    apart = of_attack(losses, arm, other, "hotflip")
    deltas = [
        np.mean([row.delta_loss for cell in cells for row in cell.rows])
        for cells in (x.cells("hotflip").values() for x in (arm, other))
    ]
    assert apart.value == pytest.approx(deltas[0] - deltas[1])


def test_rows_in_error_are_left_out_of_numbers_and_widen_intervals(make_run):
    found = {}
    for errors in (0, 3):
        run = make_run(str(errors), seeds=[1, 2, 3], errors=errors)
        arm, other = arms_of(run)
        losses = Losses(findings_of(arm.results))
        for threshold in (None, 0.15):
            found[errors, threshold] = of_attack(
                losses, arm, other, "hotflip", threshold=threshold
            )
    rows = [
        [row.delta_loss for row in cell.rows if not row.error]
        for cell in arm.cells("hotflip").values()
    ]
    success = np.mean(np.array(rows) > math.log(1.15))
    assert found[3, None].sides[0] == pytest.approx(np.mean(rows))
    assert found[3, 0.15].sides[0] == pytest.approx(success)
    for threshold in (None, 0.15):
        narrow, wide = (found[errors, threshold] for errors in (0, 3))
        assert wide.errors == pytest.approx(3 / 40)
        assert wide.interval()[0] < narrow.interval()[0] - 0.03
        assert wide.interval()[1] > narrow.interval()[1] + 0.03


# --- arms by hand -------------------------------------------------------------------

FEW = [f"d{i}" for i in range(4)]


def compared(pairs, sums=None, **told):
    return of_metric(*arms(pairs, sums), X, **told)


APART = [(number(2.0, error=0.3), number(1.0, error=0.4))] * 2
APART += [(number(4.0, error=0.6), number(5.0, error=0.2))]


def test_values_by_seed_differ_as_they_stand():
    """Errors of the same documents under every seed: squares are averaged over them."""
    found = compared(APART)
    assert isinstance(found, OverSeeds)
    assert found.sides == pytest.approx((8 / 3, 7 / 3))
    assert found.differences == pytest.approx([1, 1, -1])
    assert found.value == pytest.approx(1 / 3)
    squares = [0.09 + 0.16] * 2 + [0.36 + 0.04]
    assert found.error == pytest.approx(math.sqrt(sum(squares) / 3))
    assert (found.units, found.effective, found.errors) == (0, 40, 0)


def test_values_by_seed_change_by_their_ratio():
    """An error of a logarithm is one relative to the value."""
    found = compared(APART, relative=True)
    assert found.differences == pytest.approx(np.log([2, 2, 0.8]))
    assert found.value == pytest.approx(3.2 ** (1 / 3) - 1)
    squares = [0.15**2 + 0.4**2] * 2 + [0.15**2 + 0.04**2]
    assert found.error == pytest.approx(math.sqrt(sum(squares) / 3))
    assert found.sides == pytest.approx((8 / 3, 7 / 3))


@pytest.mark.parametrize("lacking", [0, 1])
def test_an_error_that_one_side_does_not_state_is_not_known(lacking):
    pair = [number(2.0, error=0.1), number(1.0, error=0.1)]
    pair[lacking] = number(1.5)
    assert compared([pair, APART[0]]).error is None


@pytest.mark.parametrize(
    ("counts", "fewest"), [([30, 2, 25, 40], 2), ([1, 30, 1, 25], 25), ([1] * 4, None)]
)
def test_a_metric_rests_on_the_fewest_units_of_any_number(counts, fewest):
    """A number of one unit, as of a whole corpus, says nothing of how many it has."""
    a, b, c, d = (number(1.0, n=n) for n in counts)
    assert compared([(a, b), (c, d)]).effective == (fewest or math.inf)


def test_seeds_may_be_limited_and_have_to_be_common():
    assert compared(APART, among=[2]).value == pytest.approx(-1)
    assert compared(APART, among=[7]) == "no seed in common"


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_record_without_the_number_is_told_what_there_is(lacking):
    pair = [number(1.0), number(1.0)]
    pair[lacking] = None
    told = "a record has no number 'x' of m (there are: x)"
    assert compared([APART[0], pair]) == told
    nothing = "a record has no number 'x' of m (there are: none)"
    assert compared([(None, None)]) == nothing


@pytest.mark.parametrize("value", [0.0, -0.5, 0.5])
def test_what_is_not_above_0_has_a_difference_and_no_change(value):
    pairs = [(number(1.0), number(value))]
    assert compared(pairs).value == pytest.approx(1 - value)
    change = compared(pairs, relative=True)
    if value > 0:
        assert change.value == pytest.approx(1)
    else:
        assert change == "a number that is not above 0 has no relative change"


def test_a_number_that_is_null_says_why():
    null = number(None, reason="too little text")
    assert compared([(number(1.0), null)]) == "too little text"


def test_without_its_loss_perplexity_has_no_change():
    assert perplexity_change(*arms([]), *X) == "no seed in common"


def shares(arm, other, seeds=3):
    """Return numbers and rows that are shares of right answers, a row each."""
    pairs = [tuple(number(np.mean(x)) for x in (arm, other))] * seeds
    return pairs, [tuple((x, np.ones(len(x))) for x in (arm, other))] * seeds


@pytest.mark.parametrize("relative", [False, True])
def test_shares_get_a_unit_more_on_either_arm(relative):
    """Relative changes get them relative to the mean share of both arms."""
    arm, other = np.repeat([1.0, 0.0], [18, 6]), np.repeat([1.0, 0.0], [12, 12])
    pairs, sums = shares(arm, other)
    own, base, one = (0.75, 0.5, 1 / 0.625) if relative else (1, 1, 1)
    center = math.log(0.75 / 0.5) if relative else 0.25
    off = (arm - 0.75) / own - (other - 0.5) / base
    found = compared(pairs, sums, relative=relative)
    wanted = np.append(center + off, [one, -one])
    assert found.most == pytest.approx(np.tile(wanted, (3, 1)))
    assert (found.units, found.value) == (26, pytest.approx(0.5 if relative else 0.25))


@pytest.mark.parametrize(
    "other",
    [
        ([0.0, 1.0, 0.5, 1.0], [1.0, 1.0, 1.0, 1.0]),
        ([0.0, 1.0, 1.0, 1.0], [1.0, 2.0, 1.0, 1.0]),
        ([0.5, 2.0, 0.5, 0.5], [2.0, 2.0, 2.0, 2.0]),
    ],
)
def test_units_that_are_not_counted_each_get_none_more(other):
    counted = ([0.0, 1.0, 1.0, 0.0], [1.0] * 4)
    value = sum(other[0]) / sum(other[1])
    found = compared([(number(0.5), number(value))], [(counted, other)])
    assert found.units == 4


@pytest.mark.parametrize(
    ("sums", "paired"),
    [
        ([(1, 1), (1, 1)], True),
        ([(1, 1), (1, None)], False),
        ([(1, None), (1, None)], False),
        ([(None, None), (None, None)], False),
        ([(1, 1), (1, ["d0", "d1", "d2", "d4"])], False),
    ],
)
def test_rows_are_paired_where_all_records_tell_the_same_ones(sums, paired):
    def rows(told):
        return told and ([1.0, 2.0, 3.0, 6.0], [1.0] * 4, FEW if told == 1 else told)

    pairs = [(number(3.0), number(3.0))] * 2
    found = compared(pairs, [tuple(map(rows, x)) for x in sums])
    assert isinstance(found, Difference if paired else OverSeeds)
    assert (found.units, found.errors) == (4 if paired else 0, 0)


@pytest.mark.parametrize("wide", [0, 1])
def test_rows_tell_as_much_as_those_of_the_less_equal_arm(wide):
    """Two units of equal weight, and 1 + 3 that tell as much as 16 / 10 (Kish)."""
    rows = [([1.0, 3.0], [1.0, 1.0])] * 2
    rows[wide] = ([1.0, 3.0], [1.0, 3.0])
    pairs = [[number(sum(a) / sum(b)) for a, b in rows]]
    assert compared(pairs, [rows]).effective == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("off", "unit", "paired"),
    [
        (0.9, "points", True),
        (1.1, "points", False),
        (0.9, "perplexity", True),
        (1.1, "perplexity", False),
    ],
)
def test_rows_are_paired_where_they_add_up_to_what_is_recorded(off, unit, paired):
    """Up to a millionth."""
    ratio = math.log(1e4) if unit == "perplexity" else 1e4
    rows = ([0.5 * ratio, 1.5 * ratio], [1.0, 1.0])
    pair = [number(x, unit=unit) for x in (1e4, 1e4 * (1 + off * 1e-6))]
    found = compared([pair], [(rows, rows)])
    assert isinstance(found, Difference if paired else OverSeeds)
    assert found.sides == tuple(x.value for x in pair)


@pytest.mark.parametrize(
    ("seeds", "units", "columns"),
    [(1, 499, 499), (2, 501, 500), (2, 40, 40), (3, 501, 501)],
)
def test_units_of_few_seeds_are_grouped_beyond_500(seeds, units, columns):
    rng = np.random.default_rng(1)
    rows = [rng.normal(3, 1, (2, units)) for _ in range(seeds)]
    pairs = [tuple(number(x.mean()) for x in pair) for pair in rows]
    sums = [tuple((x, np.ones(units)) for x in pair) for pair in rows]
    found = compared(pairs, sums)
    assert (found.most.shape, found.units) == ((seeds, columns), units)
    wanted = np.mean([a.mean() - b.mean() for a, b in rows])
    assert (found.value, found.most.mean()) == pytest.approx((wanted, wanted))


# --- attacks by hand ----------------------------------------------------------------


def attacked(arm_fails, other_fails, threshold=None, scale=1.0):
    """Compare `flip` on two arms of which some (seed, document) end in an error."""
    findings = flawless(noise=0.2)
    deltas = {}
    for label, fails in (("treated", arm_fails), ("baseline", other_fails)):
        delta = findings.arm("m", label).cells["flip"].delta.copy()
        delta *= scale if label == "treated" else 1
        for place in fails:
            delta[place] = np.nan
        findings = edited(findings, label, "flip", delta=delta)
        deltas[label] = delta[..., -1]
    sides = [findings.arm("m", label) for label in deltas]
    found = of_attack(Losses(findings), *sides, "flip", threshold=threshold)
    return found, *deltas.values()


@pytest.mark.parametrize("threshold", [None, 1.2])
def test_a_document_that_failed_on_either_arm_is_left_out_of_both(threshold):
    found, arm, other = attacked([(0, 3), (1, 3), (0, 4)], [(2, 5)], threshold)
    kept = [i for i in range(24) if i not in (3, 4, 5)]
    if threshold is not None:
        arm, other = (x > math.log(1 + threshold) for x in (arm, other))
    sides = tuple(x[:, kept].mean() for x in (arm, other))
    assert found.sides == pytest.approx(sides)
    assert found.errors == pytest.approx(3 / 120)
    assert found.units == 24


@pytest.mark.parametrize("threshold", [None, 0.15])
def test_where_all_documents_failed_nothing_is_compared(threshold):
    halves = [[(0, i) for i in range(12)], [(1, i) for i in range(12, 24)]]
    assert attacked(*halves, threshold)[0] == "every pair has an error"


def test_an_attack_that_never_succeeds_on_the_arm_is_wholly_reduced():
    found, _, other = attacked([], [], threshold=0.15, scale=0.0)
    assert (found.value, found.sides) == (1, (0, np.mean(other > math.log(1.15))))
    assert found.interval()[1] == 1


def test_an_attack_that_never_succeeds_on_the_other_arm_has_nothing_to_reduce():
    found, _, _ = attacked([], [], threshold=9.0)
    assert found.startswith("the attack never succeeds on the other arm")


def test_the_seed_that_is_shown_is_the_worst_of_all():
    """Each is compared alone; a seed that cannot be is why none is."""
    known = {1: 0.3, 2: -0.4, 5: 0.1}

    def compare(seeds):
        (seed,) = seeds
        value = known.get(seed, "no number")
        return value if value == "no number" else SimpleNamespace(value=value)

    def lowest(values):
        return values.index(min(values))

    found = under_each([*known], compare, lowest)
    assert [x.value for x in found.each] == [*known.values()]
    assert (found.worst, found.value) == (1, -0.4)
    assert under_each([1, 7], compare, lowest) == "no number"
    assert under_each([], compare, lowest) == "no seed in common"
