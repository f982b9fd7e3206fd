"""What plans cost on devices: seconds, money, memory, and what would fit."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.base import UsageError
from harness.suite import (
    PricedPlan,
    find_device,
    load_experiment,
    make_plan,
    would_fit,
)
from harness.suite.costs import plan_costs
from harness.suite.devices import (
    BUILT_IN,
    IN_FLOAT32,
    SHARES,
    Terms,
    Work,
    phase_seconds,
    read_devices,
)

SUITES = Path(__file__).parents[2] / "suites"
HOUR = 3600


def priced(tmp_path, device, *overrides, only=None, **choice) -> PricedPlan:
    experiment = load_experiment(
        SUITES / "pythia_1p4b.yaml", overrides=overrides, **choice
    )
    plan = make_plan(experiment, only)
    costs = plan_costs(plan, tmp_path)
    return PricedPlan(plan, costs, find_device(device))


def ids(found: PricedPlan) -> list[str]:
    return [unit.id for unit in found.plan.units]


def test_an_epoch_of_25_billion_tokens_takes_300_hours_of_an_a100(tmp_path):
    """The 6 N D of [Kaplan et al. 2020]: 2.1e20 FLOP at 1.4e9 parameters."""
    one = {"arm": ["baseline"], "seed": ["42"], "attack": ["hotflip"]}
    found = priced(tmp_path, "A100-40GB", "recovery.tokens=25e9", only=one)
    train = found.by_phase(ids(found))["train"]
    assert train.flops == pytest.approx(6 * 1.4e9 * 25e9, rel=0.1)
    assert train.seconds > 300 * HOUR
    # It is the same on paper: FLOPs over the share of the ceiling.
    reading = train.flops / (250e12 * SHARES["train"])
    assert train.seconds == pytest.approx(reading, rel=0.1)


def test_the_page_on_costs_has_the_shares_and_devices_that_are_used():
    page = (SUITES.parent / "docs" / "costs.md").read_text()
    shares = re.findall(r"^\| (\w+) \| (\d+) % \|", page, re.MULTILINE)
    assert {x: int(y) / 100 for x, y in shares} == SHARES
    others = re.findall(
        r"^\| (\w+), with products in float32 \| (\d+) % \|", page, re.M
    )
    assert {x: int(y) / 100 for x, y in others} == IN_FLOAT32
    for device in BUILT_IN.values():
        ceilings = "{bfloat16:g} ({tf32:g}, {float32:g})".format(**device.tflops)
        price = f"${device.dollars_per_hour:.2f}"
        memory = f"{device.memory_gib:g} GiB"
        assert f"| `{device.name}` | {ceilings} | {memory} | {price} |" in page


def test_the_suite_s_head_says_what_the_command_says(tmp_path):
    text = (SUITES / "pythia_1p4b.yaml").read_text()
    said = re.findall(r"(\S+) (\d+) \((?:training )?(\d+), (?:attacks )?(\d+)\)", text)
    assert [name for name, *_ in said] == ["A100-40GB", "H100", "H200"]
    for name, *hours in said:
        found = priced(tmp_path, name)
        phases = found.by_phase(ids(found))
        seconds = [phases["train"].seconds, phases["attack"].seconds]
        total = found.total(ids(found))
        assert [int(x) for x in hours] == pytest.approx(
            [total.hours, *(x / HOUR for x in seconds)], abs=1
        )
    assert f"{total.flops:.1e}".replace("e+", "e") in text


def test_training_is_linear_in_tokens_and_attacks_in_examples(tmp_path):
    def costs(*overrides):
        found = priced(tmp_path, "H100", *overrides)
        return found.by_phase(ids(found))

    once, more = costs(), costs("recovery.tokens=600e6", "examples.test.count=2000")
    assert more["train"].flops / once["train"].flops == pytest.approx(2, rel=0.01)
    # What a universal attack finds is for all examples: it does not cost more.
    assert 1.5 < more["attack"].flops / once["attack"].flops <= 2


def test_a_sweep_costs_a_pass_for_each_token_of_the_vocabulary_whoever_shares_it(
    tmp_path,
):
    """Of Pythia's embedding: 50,304 rows, twice in eight search examples."""
    only = {"arm": ["baseline"], "seed": ["42"], "attack": ["sweep"]}

    def passes(count):
        changes = "attacks.sweep={flips: 3}", f"examples.test.count={count}"
        found = priced(tmp_path, "H100", *changes, only=only)
        return found.by_phase(ids(found))["attack"].sequences_forward

    # A verdict takes twice the budget: 2 searches of 3 steps of 128 flips.
    assert passes(100) == 2 * 8 * 50304 + 100 * (1 + 2 * 3 * 128)
    assert passes(200) - passes(100) == 100 * (1 + 2 * 3 * 128)


def test_what_does_not_fit_is_said_with_what_would(tmp_path):
    """On an H200, 8 blocks in a pass took 54 GiB, and 16 of a softplus arm 86."""
    found = priced(tmp_path, "A100-40GB", "recovery.micro_batch=8", profile="quick")
    (sentence,) = found.too_large()
    assert sentence.startswith("pythia-1.4b: train needs 5")
    assert "GiB of 39.4; `recovery.micro_batch: " in sentence
    rows = sentence.partition("micro_batch: ")[2].partition("`")[0]
    smaller = f"recovery.micro_batch={rows}"
    assert not [*priced(tmp_path, "A100-40GB", smaller).too_large()]
    larger = f"recovery.micro_batch={int(rows) + 1}"
    assert [*priced(tmp_path, "A100-40GB", larger).too_large()]
    assert not [*priced(tmp_path, "H100", "recovery.micro_batch=8").too_large()]


def test_without_a_stated_micro_batch_as_many_blocks_as_fit_are_read(tmp_path):
    for device, least, most in (("A100-40GB", 30, 36), ("H200", 80, 90)):
        found = priced(tmp_path, device, profile="quick")
        assert not [*found.too_large()]
        peak = found.total(ids(found)).peak_memory_bytes / 2**30
        assert least < peak <= most


def test_each_change_that_would_fit_does(tmp_path):
    found = priced(tmp_path, "H100", profile="quick")
    hours = found.total(ids(found)).hours
    assert not [*would_fit(found, ids(found), hours * 1.01, tmp_path)]

    tokens, examples, *rest = would_fit(found, ids(found), hours * 0.9, tmp_path)

    assert rest == ["2 of 3 seeds", "3 of 4 arms"]
    for change in (tokens, examples):
        stated = change.strip("`").replace(": ", "=")
        fewer = priced(tmp_path, "H100", stated, profile="quick")
        assert fewer.total(ids(fewer)).hours <= hours * 0.91


@pytest.mark.parametrize(
    ("hours", "kept", "others"),
    [(4, 5, []), (1.5, 3, []), (9.5, 5, ["1 of 5 seeds"])],  # 45 hours as it stands
)
def test_as_many_test_examples_are_proposed_as_fit(tmp_path, hours, kept, others):
    """In a suite whose cost is its attacks; with fewer seeds where all are too many."""
    attacks = "metrics=null", "claims=null", "recovery=null"
    found = priced(tmp_path, "H100", *attacks)
    said, *rest = would_fit(found, ids(found), hours, tmp_path)

    seeds = found.plan.experiment.suite.seeds
    count = int(said.partition("`examples.test.count: ")[2].strip("`"))
    assert said.startswith(f"{kept} of 5 seeds with `") == (kept < len(seeds))
    assert rest == others
    for changed, fits in ((count, True), (count + 1, False)):
        stated = f"examples.test.count={changed}", f"seeds={[*seeds[:kept]]}"
        other = priced(tmp_path, "H100", *attacks, *stated)
        assert (other.run_seconds(ids(other)) <= hours * HOUR) == fits


def test_an_hour_has_its_price(tmp_path):
    found = priced(tmp_path, "H200", profile="quick")
    total = found.total(ids(found))
    assert total.dollars == pytest.approx(total.hours * 4.0)
    half = found.total(ids(found)[:5])
    assert half.seconds < total.seconds
    assert half.disk_bytes == 5 * 4 * 1_414_647_808


def test_what_saves_memory_costs_time_and_devices_save_it(tmp_path):
    def train(*overrides):
        found = priced(tmp_path, "A100-40GB", *overrides, profile="quick")
        cost = found.by_phase(ids(found))["train"]
        part = next(iter(found.costs.units.values())).parts["train"]
        return cost, part

    once, part = train()
    again, less = train("recovery.checkpointing=true")
    assert again.flops == once.flops  # what is computed again is on no ledger
    assert again.seconds == pytest.approx(once.seconds * 4 / 3, rel=0.02)
    assert less.bytes_a_row < 0.2 * part.bytes_a_row
    _, lean = train("recovery.optimizer_state=bfloat16")
    assert part.bytes_needed - lean.bytes_needed == 4 * 1_414_647_808
    both, _ = train("recovery.devices=2")
    assert both.seconds == pytest.approx(once.seconds / 2, rel=0.02)
    held = priced(tmp_path, "H100", "recovery.devices=2", profile="quick")
    total = held.total(ids(held))
    assert total.hours == pytest.approx(2 * total.seconds / 3600)


def test_a_gpu_computes_metrics_as_fast_as_was_measured():
    """Of 1.4e9 parameters, 100,956 tokens took 7.5 s in float32, and 1.8 in TF32."""
    work = Work(flops=100_956 * 2.9e9, times=0)
    assert phase_seconds(find_device("H200"), "metrics", work) == pytest.approx(
        7.5, 0.1
    )
    work = replace(work, precision="tf32")
    assert phase_seconds(find_device("H200"), "metrics", work) == pytest.approx(
        1.8, 0.15
    )


def test_a_phase_takes_what_its_terms_say():
    device = find_device("H100").model_copy(
        update={"terms": {"attack": Terms(flop=2.0, sequence=3.0, once=5.0)}}
    )
    work = Work(flops=7.0, sequences=11.0, times=2, seconds=1.0)
    assert phase_seconds(device, "attack", work) == 1 + 14 + 33 + 10
    terms = Terms(value=2.0, ranked=3.0, gradient=5.0, layer=7.0, weight=11.0)
    device = device.model_copy(update={"terms": {"attack": terms}})
    work = Work(values=13.0, ranked=17.0, gradients=19.0, layers=23.0, weights=29.0)
    assert phase_seconds(device, "attack", work) == 26 + 51 + 95 + 161 + 319


def test_gradients_rank_tokens_in_attacks_and_where_a_control_takes_them(tmp_path):
    """Of the budget's gradients some 60 % are taken, at 64 positions of 50,304 ids."""
    only = {"arm": ["baseline"], "seed": ["42"]}
    found = priced(tmp_path, "H100", "examples.test.count=10", only=only)
    work = {
        unit.attack: found.costs.units[unit.id].parts["attack"].work
        for unit in found.plan.cells
    }
    budget = found.plan.experiment.attacks["hotflip"].budget(10).backward
    taken = 10 * 2 * budget * 0.6  # verdicts take twice the budget
    for label in ("hotflip", "hotflip-permuted"):
        assert work[label].gradients == pytest.approx(taken, rel=0.02)
        assert work[label].ranked == 64 * 50304 * work[label].gradients
    for label in ("hotflip-random", "uat", "uat-permuted"):
        assert work[label].ranked == 0
    assert work["hotflip-random"].flops == work["hotflip"].flops


@pytest.mark.parametrize(("stated", "rows"), [(13, 1), (16, 8), (12, 6)])
def test_a_pass_of_training_has_as_many_blocks_as_divide_a_step(tmp_path, stated, rows):
    """On a CPU, which takes up to eight; the gradients of each are added up."""
    recovery = f"recovery.batch_tokens={stated * 2048}", "recovery.micro_batch=8"
    only = {"arm": ["baseline"], "seed": ["42"], "attack": ["hotflip"]}
    found = priced(tmp_path, "H100", *recovery, only=only)
    work = next(iter(found.costs.units.values())).whole["train"].work
    section = found.plan.experiment.suite.recovery
    passes = section.steps() * stated // rows
    assert work.layers == 3 * 24 * passes
    touched = 4 * section.steps() + 2 * passes
    assert work.weights == 1_414_647_808 * touched


def test_devices_of_a_file_are_known(tmp_path):
    file = tmp_path / "devices.json"
    mine = {"name": "mine", "tflops": {"float32": 9.0}, "memory_gib": 12}
    file.write_text(json.dumps([mine]))
    assert find_device("mine", file).memory_gib == 12
    with pytest.raises(UsageError, match="did you mean 'mine'"):
        find_device("mien", file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON|Invalid JSON"),
        ('[{"name": "x", "tflops": {}}]', "0.memory_gib: Field required"),
        ('[{"name": "x", "speed": 1}]', "0.tflops: Field required"),
    ],
)
def test_a_faulty_file_of_devices_is_said_to_be_one(tmp_path, text, message):
    file = tmp_path / "devices.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_devices(file)
    with pytest.raises(UsageError, match="is no regular file"):
        read_devices(tmp_path / "gone.json")
