"""An attack that takes more than its suite allows fails its cell, and nothing else."""

import resource

import pytest

HONEST = {"attack": "none"}
BOUNDED = {
    "loops": ({"timeout": 0.4}, "took longer than its timeout of 0 s"),
    "sleeps": ({"timeout": "0.3 s"}, "took longer than its timeout of 0 s"),
    "hoards": ({"memory_gib": 0.5}, "needs more memory than its memory_gib of 0.5"),
}


@pytest.fixture(scope="module")
def done(place):
    before = resource.getrlimit(resource.RLIMIT_AS)
    attacks = {name: bounds for name, (bounds, _) in BOUNDED.items()}
    kept = {"attack": "none", "timeout": "10 min", "memory_gib": 4}
    assert place.run("bounds", {**attacks, "kept": kept, "honest": HONEST}) == 1
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    return lambda attack: place.record("bounds", attack)


@pytest.mark.parametrize("attack", BOUNDED)
def test_what_it_took_too_much_of_is_said_and_where(done, attack):
    record, rows = done(attack)
    assert (record["status"], rows) == ("failed", None)
    error = record["error"]
    assert error["message"] == f"the attack '{attack}' {BOUNDED[attack][1]}"
    assert "zoo.py, line " in error["place"]


def test_what_was_finished_before_is_not_done_again(place, done):
    """The second attempt begins with the example that the first one hung at."""
    (journal,) = (place.folder / "bounds").glob("cells/*.loops-*/samples.partial.jsonl")
    assert journal.read_text().count('"example_id":') == 1


def test_bounds_change_nothing_for_what_keeps_within_them(done):
    (kept, rows), (plain, expected) = done("kept"), done("honest")
    assert (kept["status"], rows) == ("complete", expected)
    assert kept["identity"] == plain["identity"]
