"""The paragraph and the appendix of a paper: every number is one of a record."""

import json
import re

from harness import report
from harness.records import Cost
from harness.running.folder import RunFolder
from harness.running.surveying import survey
from tests.run_fixtures import editing, read_all

THREE = {"seeds": [1, 2, 3]}


def made(run):
    return report.build(survey(run))


def appendix(run):
    """Return the settings by what they are about and which it is."""
    (table,) = [x for x in made(run).tables if x.key == "appendix"]
    return {(row[0].text, row[1].text): row[2].text for row in table.rows}


def stated(settings):
    """Return the settings of a row by name, as texts."""
    return dict(part.rsplit(" ", 1) for part in settings.split(", "))


def written(value):
    if isinstance(value, bool) or value is None:
        return {None: "none"}.get(value, str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def power(value):
    return re.sub(r"e\+0?", "e", f"{value:.2e}")


def test_settings_of_a_model_an_arm_and_an_attack_are_those_of_the_records(make_run):
    run = make_run(**THREE)
    found = appendix(run)
    for record in read_all(run):
        model = stated(found["model", record.model.label])
        assert model["parameters"] == f"{record.model.parameters:,}"
        arm = stated(found["arm", record.arm.label])
        assert arm["constraint"] == record.arm.constraint
        options = {**record.model.options, **record.arm.options}
        told = {**model, **arm}
        if record.attack:
            attack = stated(found["attack", record.attack.label])
            told |= attack
            # A control has the budget of its attack in place of its own options.
            assert ("candidates" in attack) == (record.attack.match is None)
            options |= {} if record.attack.match else record.attack.options
            assert attack["share of the stated budget"] == f"{record.attack.share:g}"
            assert attack.get("budget of") == record.attack.match
        for name, value in options.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                assert told[name] == written(value)


def test_seeds_and_training_are_those_of_the_records(make_run):
    run = make_run(**THREE)
    found = appendix(run)
    assert found["seeds", "monotone"] == "1, 2 and 3"
    training = found["recovery", "baseline and monotone"]
    recovery = read_all(run)[0].arm.recovery
    for name in ("tokens", "context", "batch_tokens", "learning_rate", "max_grad_norm"):
        assert f" {name} {written(recovery[name])}" in training
    assert "corpus train (python-topics, slice :70%, fingerprint sha256:0" in training


def test_versions_machines_and_costs_are_those_of_the_records(make_run):
    run = make_run(**THREE)
    found, records = appendix(run), read_all(run)
    for name, version in records[0].provenance.versions.items():
        assert found["software", name] == version
    assert found["software", "commit"].startswith(records[0].provenance.commit[:12])
    for phase in ("metrics", "attack"):
        costs = [x.ledger.spent[phase] for x in records if phase in x.ledger.spent]
        total = Cost.sum(costs)
        assert found["cost", phase].startswith(f"{total.seconds:.1f} s, ")
        assert f" s, {power(total.flops)} FLOP, peak " in found["cost", phase]
    host = records[0].provenance.hardware["host"]
    assert not [x for x in found.values() if re.search(rf"\bhost\b|\b{host}\b", x)]


def test_the_paragraph_has_the_numbers_of_the_records(make_run):
    run = make_run(**THREE)
    text = made(run).methods
    variants = [x for x in read_all(run) if x.kind == "variant"]
    cells = [x for x in read_all(run) if x.attack and x.attack.label == "hotflip"]
    spent = sum(x.flops for r in read_all(run) for x in r.ledger.spent.values())
    flops = cells[0].ledger.kept["attack"].flops / 40
    for part in (
        f"Pythia_1.4B ({variants[0].model.parameters:,} parameters, sha256:",
        "The arms are baseline (no constraint) and monotone (softplus",
        "The training seeds are 1, 2 and 3.",
        f"is trained on {variants[0].recovery.tokens:,} tokens of train (",
        f"{variants[0].recovery.steps:,} steps of AdamW",
        f"learning rate {variants[0].arm.recovery['learning_rate']:.6g},",
        f"; {cells[0].attack.share:g} times the stated budget, {power(flops)} FLOP an",
        "hotflip is held against random at the same budget.",
        "Each attacks 40 prompts of 64 tokens, scored on the 64 tokens that follow",
        "exp(dL) > 1.15",
        "(40 documents and 3 seeds), with 95 % intervals from two-way random effects",
        "harder to attack at 1 %, easier to attack at 1 % and equivalent at 2.5 %",
        "a difference within 10 % counts as none",
        f"torch {variants[0].provenance.versions['torch']},",
        f"The {len(read_all(run))} trainings and attacks took 0.0 s and {power(spent)}",
    ):
        assert part in text


def test_few_seeds_and_a_limit_are_told(make_run):
    text = made(make_run(seeds=[1], more="limit: 9")).methods
    assert "a studentized bootstrap over documents" in text
    assert "Only the first 9 of them were used." in text
    assert "The training seed is 1." in text


def test_what_differs_among_records_is_told_with_how_many_have_it(make_run):
    run = make_run(seeds=[1])
    with editing(RunFolder(run).records("cell")[0]) as document:
        document["provenance"]["versions"]["torch"] = "0.1"
        document["provenance"]["hardware"] = {
            "device": "cuda:0",
            "device_name": "NVIDIA H100",
            "device_memory_bytes": 80 * 2**30,
            "cuda": "12.6",
            "cores": 16,
            "memory_bytes": 128 * 2**30,
            "system": "Linux x86_64",
        }
    torch = read_all(run)[0].provenance.versions["torch"]
    expected = f"0.1 (1 record), {torch} (5 records)"
    assert appendix(run)["software", "torch"] == expected
    assert f"torch {expected}" in made(run).methods
    device = appendix(run)["machine", "device"]
    card = "NVIDIA H100 of 80.0 GiB, CUDA 12.6, beside 16 cores and 128.0 GiB (Linux "
    assert f"{card}x86_64) (1 record)" in device
    assert re.search(r"CPU of \d+ cores and [\d.]+ GiB \(.*\) \(5 records\)", device)


def test_arms_of_fewer_seeds_are_told(make_run):
    arms = ("baseline", "monotone", "short")
    run = make_run(
        arms="  short: {constraint: softplus, seeds: [2]}\n",
        clean_loss=dict.fromkeys(arms, 2.5),
        delta_loss={(x, y): 0.5 for x in arms for y in ("hotflip", "random")},
    )
    expected = "1 and 2 (baseline and monotone) and 2 (short)."
    assert f"The training seeds are {expected}" in made(run).methods


def test_nothing_is_said_of_a_run_without_records(make_run):
    assert made(make_run(absent=("s1", "s2"))).methods == ""


def test_every_format_has_the_paragraph_when_it_is_asked_for(make_run):
    whole = made(make_run(**THREE))
    only = report.choose(whole, ["methods"])
    assert (list(only.tables), only.methods) == ([], whole.methods)
    assert report.choose(whole, ["main"]).methods == ""
    renamed = report.choose(whole, ["methods"], names={"monotone": "Ours"})
    for style in ("text", "markdown", "latex", "json"):
        assert "Ours (softplus" in report.render(renamed, style)
    assert r"\paragraph{Methods.}" in report.render(only, "latex")
    assert json.loads(report.render(only, "json"))["methods"] == whole.methods
