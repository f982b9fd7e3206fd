"""Runs that are written down, for other processes to work on."""

import json

import pytest

from harness.base import Store
from harness.running.folder import RunFolder
from harness.running.frozen import freeze
from harness.suite import load_experiment, make_plan, resolve
from tests.run.same import differences

PROFILE = "\nprofiles:\n  quick: {limit: 2, attacks: {uat: null, random: null}}\n"
CHOICE = {"arm": ["baseline"], "attack": ["hotflip"]}


@pytest.fixture
def freezing(suite, tmp_path):
    """Return a function that freezes a part of the suite."""
    suite.write_text(suite.read_text() + PROFILE)
    folder = RunFolder(tmp_path / "runs" / "frozen")

    def frozen(rerun=False):
        store = Store(tmp_path / "runs" / ".store")
        experiment = resolve(load_experiment(suite, profile="quick"), store.root)
        plan = make_plan(experiment, CHOICE)
        return freeze(plan, folder, folder.root / "jobs" / "1", rerun=rerun)

    return frozen


def test_a_frozen_run_gives_the_records_of_its_suite(suite, freezing, cli, tmp_path):
    frozen, text = freezing(), suite.read_text()
    suite.unlink()
    out, (variant, cell) = frozen.folder.root, [unit.id for unit in frozen.units]
    resolved = frozen.folder.suite_file.read_text()

    early = cli("run", frozen.suite, "--units", cell)
    assert early.code == 0
    assert "0 of 0 complete; left for later" in early.err
    assert not (out / "report").exists()
    unfinished = cli("run", frozen.suite, "--finish")
    assert unfinished.code == 1
    assert f"0 of 2 complete; not run: {variant}, {cell}" in unfinished.err

    done = cli("run", frozen.suite, "--units", variant)
    assert (done.code, done.out) == (0, "")
    assert "1 of 1 complete" in done.err
    again = cli("run", frozen.suite, "--units", "all")
    assert "2 of 2 complete (1 of them before)" in again.err
    finished = cli("run", frozen.suite, "--finish")
    assert finished.code == 0
    assert "2 of 2 complete" in finished.err
    assert (out / "report" / "report.md").exists()
    assert frozen.folder.suite_file.read_text() == resolved
    assert [*(out / ".claims").rglob("*.*")] == []

    suite.write_text(text)
    plain = tmp_path / "runs" / "plain"
    only = ("--only", "arm=baseline,attack=hotflip")
    found = cli("run", suite, "--profile", "quick", *only, "--out", plain)
    assert found.code == 0
    assert differences(out, plain) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--units", "tiny.baseline"), "unknown unit 'tiny.baseline'; did you mean"),
        (("--units", "all", "--seeds", "1"), "take a run as it was frozen"),
        (("--finish", "--out", "elsewhere"), "take a run as it was frozen"),
        (("--finish", "--rerun"), "--rerun and --workers are for where it was frozen"),
    ],
)
def test_a_frozen_run_takes_no_other_choice(freezing, cli, options, said):
    found = cli("run", freezing().suite, *options)
    assert found.code == 2
    assert said in found.err


def test_what_is_made_again_is_made_once(freezing, cli):
    frozen = freezing()
    variant = frozen.units[0].id
    assert cli("run", frozen.suite, "--units", variant).code == 0
    path = frozen.folder.record_path("variant", variant)
    first = path.read_bytes()
    frozen = freezing(rerun=True)
    for found in ("1 of 1 complete", "1 of 1 complete (1 of them before)"):
        said = cli("run", frozen.suite, "--units", variant).err
        assert found in said.splitlines()
    assert path.read_bytes() != first


def test_what_is_no_frozen_run_says_so(freezing, cli):
    frozen = freezing()
    path = frozen.suite.with_name("frozen.json")
    written = json.loads(path.read_text())
    path.write_text(json.dumps({**written, "units": ["tiny.gone-1"]}))
    found = cli("run", frozen.suite, "--finish")
    assert found.code == 2
    assert "does not have, as tiny.gone-1" in found.err
    found = cli("run", frozen.folder.suite_file, "--finish")
    assert found.code == 2
    assert "is no frozen run: it has no frozen.json beside it" in found.err
