"""Every kind of forgery is found by what docs/security.md says, and by nothing less."""

import re
from pathlib import Path

import pytest

from harness import report
from harness.running import Replaying, survey, validate
from tests.forgeries.forger import Forger
from tests.forgeries.kinds import KINDS, MORE

pytestmark = [pytest.mark.replays, pytest.mark.xdist_group("forgeries")]
PAGE = Path(__file__).parents[2] / "docs" / "security.md"
ALL = [*KINDS, *MORE]
BY_NAME = {kind.name: kind for kind in ALL}
REPLAYED = [
    (
        "attacked_losses_lowered_with_traces",
        "trace",
        "text_reachable_turned",
        "metric_rows",
        "certificate",
        "diagnostics",
        "recovery",
        "diagnostics_dropped",
        "losses_of_checkpoints",
    ),
    (
        "easier_examples",
        "invented_documents",
        "references_changed",
        "frozen_model_replaced",
    ),
]
"""What can be forged in one copy, and told apart by what is found."""


@pytest.fixture
def forger(finished, tmp_path):
    return Forger(finished, tmp_path / "copy")


def errors(run, **how):
    return [x for x in validate([run], **how).problems if x.severity == "error"]


def test_an_honest_run_is_valid(finished):
    found = validate([finished], published=finished.parents[1] / "tiny.yaml")
    assert found.problems == ()
    assert [*report.stale(survey(finished))] == []


@pytest.mark.parametrize("name", [x.name for x in ALL if x.found_by == "plain"])
def test_what_a_plain_validation_finds(forger, name):
    BY_NAME[name].forge(forger)
    assert any(BY_NAME[name].told in str(problem) for problem in errors(forger.run))


@pytest.mark.parametrize("names", REPLAYED, ids=lambda names: names[0])
def test_what_a_replay_finds(forger, names):
    for name in names:
        BY_NAME[name].forge(forger)
    assert errors(forger.run) == []
    some = Replaying(rows=5, seed=1)
    problems = [str(x) for x in errors(forger.run, replaying=some)]
    for name in names:
        assert any(BY_NAME[name].told in problem for problem in problems), name


@pytest.mark.slow
def test_an_honest_run_can_be_replayed(finished):
    assert errors(finished, replaying=Replaying()) == []


@pytest.mark.parametrize("name", [x.name for x in ALL if x.found_by == "rerun"])
def test_what_only_a_rerun_finds(forger, name):
    BY_NAME[name].forge(forger)
    forger.publish()
    assert errors(forger.run) == []
    assert [*report.stale(survey(forger.run))] == []


def test_what_was_taken_out_is_found_beside_the_published_suite(forger, finished):
    kind = BY_NAME["cell_taken_out_of_suite_and_folder"]
    kind.forge(forger)
    assert errors(forger.run) == []
    found = errors(forger.run, published=finished.parents[1] / "tiny.yaml")
    assert sum(kind.told in str(problem) for problem in found) == 4


def test_a_report_that_was_edited_is_found(forger, cli):
    BY_NAME["report_files"].forge(forger)
    done = cli("validate", forger.run)
    assert done.code == 1
    assert "report.md: is not what the records give" in done.out
    assert "`harness run` on the suite does it again" in done.out


def test_the_page_has_a_row_for_each_forgery():
    section = PAGE.read_text().split("## Forged records")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (\w+)", section, re.M)
    levels = {kind.name: kind.found_by.replace("report", "plain") for kind in KINDS}
    assert dict(rows) == levels
    assert len(KINDS) == 36


def test_rows_to_replay_are_said_and_need_a_run(cli, tmp_path):
    alone = tmp_path / "record.json"
    alone.write_text("{}")
    done = cli("validate", "--replay", "--rows", 2, alone)
    assert done.code == 2
    assert re.search(r"2 rows of each cell and metric, drawn by --seed \d+", done.err)
    assert "name one" in done.err
    assert cli("validate", "--rows", 2, alone).code == 2
