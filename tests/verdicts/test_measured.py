"""What two arms of a run differ by: the numbers of records, rows beside each other."""

import json
import math

import numpy as np
import pytest

from harness.running import survey
from harness.verdicts import Results, findings_of
from harness.verdicts.compared import Difference, OverSeeds
from harness.verdicts.losses import Losses
from harness.verdicts.measured import of_attack, of_metric, perplexity_change
from harness.verdicts.results import Sums
from tests.run_fixtures import read_all


def read(run):
    return Results(survey(run, (), trust=True), 0.15)


def arms(run):
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
    gap = of_metric(*arms(run), ("perplexity", name))
    change = of_metric(*arms(run), ("perplexity", name), relative=True)
    assert isinstance(gap, Difference)
    assert (gap.units, gap.seeds) == (25, 3)
    assert gap.value == pytest.approx(np.mean(ours - theirs))
    assert change.value == pytest.approx(math.exp(np.mean(np.log(ours / theirs))) - 1)
    assert gap.sides == pytest.approx((ours.mean(), theirs.mean()))


def test_a_change_of_perplexity_is_that_of_its_loss(run):
    name = ("perplexity", "token_perplexity")
    change = of_metric(*arms(run), name, relative=True)
    found = perplexity_change(*arms(run), "perplexity", "loss")
    assert found.value == pytest.approx(change.value)
    assert found.interval() == pytest.approx(change.interval())


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("name", ["token_perplexity", "bits_per_byte"])
def test_documents_weigh_as_much_as_leaving_them_out_changes(run, name, relative):
    """The spread of rows is that of the jackknife, by another computation."""
    arm, other = arms(run)
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
    arm, other = arms(run)
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
    arm, other = arms(run)
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
    found = of_metric(*arms(run), ("perplexity", "loss"))
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
    arm, other = arms(run)
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
    found = of_metric(*arms(run), ("perplexity", "lozz"))
    assert found.startswith("a record has no number 'lozz' of perplexity (there are: ")


def test_success_is_that_of_rows(run):
    arm, other = arms(run)
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
        arm, other = arms(run)
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
