"""An attack that ends the process costs its cell; the same command does the rest."""

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("deaths")]
SENTENCES = {
    "exits": "its process died",
    "hangs_in_c": "its process took longer than its timeout of 1 s",
}
"""By attack: what its record says."""


@pytest.fixture(scope="module")
def ended(place):
    attacks = {"exits": {}, "hangs_in_c": {"timeout": 1}, "honest": {"attack": "none"}}
    command = [sys.executable, "-m", "harness", *place.command("deaths", attacks)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("attack", SENTENCES)
def test_its_cell_fails_with_a_sentence(place, ended, attack):
    record, rows = place.record("deaths", attack)
    assert (record["status"], rows) == ("failed", None)
    assert record["error"]["message"].startswith(SENTENCES[attack])


def test_the_rest_of_the_suite_is_done_by_the_same_command(place, ended):
    record, rows = place.record("deaths", "honest")
    assert (record["status"], rows.count("\n")) == ("complete", 3)
    assert ended.returncode == 1
    assert "2 of 4 complete" in ended.stderr
    word = (
        "the process ended without a word (exit code 0) during tiny.baseline.s7.exits"
    )
    assert ended.stderr.count(word) == 3


def test_the_log_says_where_it_hung(place, ended):
    (log,) = (place.folder / "deaths").glob("cells/*.hangs_in_c-*/log.txt")
    assert "zoo.py" in log.read_text().partition("Timeout (")[2]
