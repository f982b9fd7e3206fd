"""``harness power``: a planned suite, and the run folder of a pilot."""

import json

import pytest


@pytest.fixture
def pilot(make_run):
    return make_run(seeds=[1, 2, 3])


def test_it_prints_what_the_suite_and_more_of_it_would_find(cli, pilot):
    suite = pilot / "suite.resolved.yaml"
    outcome = cli(
        "power", suite, "--from", pilot, "--set", "examples.test.count=30",
        "--seeds", "1,2,3,4",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].startswith("1 contrast, so 1 % one-sided")
    assert lines[2] == "Pythia_1.4B: monotone - baseline"
    assert "seeds 3, documents 40" in lines[3]
    assert lines[4].split() == [
        "seeds",
        "30",
        "documents",
        "60",
        "documents",
        "120",
        "documents",
    ]
    assert [line.split()[0] for line in lines[6:10]] == ["3", "4", "5", "8"]
    assert "behind `to`" in " ".join(lines[10:])
    assert "4 (the suite)" in lines[7]


def test_a_pilot_of_one_seed_says_what_it_lacks(cli, make_run):
    run = make_run(seeds=[1])
    outcome = cli("power", run / "suite.resolved.yaml", "--from", run)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[-1].startswith("  how seeds vary takes a pilot of two seeds or more")
    assert "seeds unknown" in lines[-2]
    assert "both together" not in outcome.out


def test_json_says_the_same_and_more_finds_smaller_differences(cli, pilot):
    suite = pilot / "suite.resolved.yaml"
    outcome = cli("power", suite, "--from", pilot, "--json")
    (contrast,) = json.loads(outcome.out)
    assert contrast["planned"]["arm"] == "monotone"
    found = {(x["seeds"], x["documents"]): x["difference"] for x in contrast["found"]}
    assert found[3, 40] > found[3, 160] > found[8, 160] > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--from", "gone"], "'gone' does not exist"),
        (["--from", "."], "is no run folder"),
        ([], "Missing option '--from'"),
    ],
)
def test_a_pilot_that_is_none_is_said_in_a_sentence(
    cli, pilot, tmp_path, monkeypatch, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    outcome = cli("power", pilot / "suite.resolved.yaml", *arguments)
    assert outcome.code == 2
    assert sentence in outcome.err


def test_a_pilot_without_a_contrast_says_so(cli, make_run):
    run = make_run(absent=("monotone",))
    outcome = cli("power", run / "suite.resolved.yaml", "--from", run)
    assert outcome.code == 2
    assert "no contrast to read a variance from" in outcome.err
