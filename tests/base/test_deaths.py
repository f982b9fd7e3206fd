"""When a unit is given up because of processes that died at it."""

import json

import pytest

from harness.base import fatal, forget_deaths, note_death
from harness.base.deaths import DEATHS


@pytest.mark.parametrize(
    ("deaths", "said"),
    [
        ([], None),
        ([("a", 0)] * 2, None),
        ([("a", 0)] * 3, "its process died (a), and so did the 2 before it"),
        ([("a", 0), ("a", 1), ("a", 2), ("a", 3)], None),  # each time it came further
        ([("a", 0), ("b", 0), ("a", 0), ("b", 0)], None),  # of two runs
        ([("", 0)] * 5, None),  # nobody watches: killed by hand, perhaps
        ([("a", 0), ("a", 4), ("a", 4), ("a", 4)], "its process died (a), and so did"),
    ],
)
def test_three_deaths_of_a_run_at_one_place_are_enough(
    tmp_path, monkeypatch, deaths, said
):
    for run, rows in deaths:
        monkeypatch.setenv("HARNESS_RUN", run)
        note_death(tmp_path, f"died ({run})", rows=rows)
    found = fatal(tmp_path)
    assert found is None if said is None else found.startswith(said)
    forget_deaths(tmp_path)
    assert fatal(tmp_path) is None


def test_a_final_death_counts_at_once_in_its_run_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_RUN", "a")
    note_death(tmp_path, "took too long", final=True)
    note_death(tmp_path, "died")
    assert fatal(tmp_path) == "its process took too long"
    monkeypatch.setenv("HARNESS_RUN", "b")
    note_death(tmp_path, "died")
    assert fatal(tmp_path) is None


def test_what_cannot_be_read_is_no_death(tmp_path):
    path = tmp_path / DEATHS
    path.write_bytes(b'\xff\n{"reason": 1, "other": 2}\n[]\n{"reason": "x", "fin')
    assert fatal(tmp_path) is None
    with path.open("a") as file:
        file.write("\n" + json.dumps({"reason": "took too long", "final": True}))
    assert fatal(tmp_path) == "its process took too long"
