"""Questions to an arm as a whole."""

from dataclasses import replace

import pytest

from harness.verdicts.findings import Replayed
from harness.verdicts.questions.arms import completeness, replay
from tests.verdicts.simulated import flawless

ARM = flawless(0.5).arm("m", "treated")


@pytest.mark.parametrize(
    ("holes", "said"),
    [
        ("", None),
        ("a", "not complete: a"),
        ("abc", "not complete: a, b, c"),
        ("abcd", "not complete: a, b, c and 1 more"),
        ("abcde", "not complete: a, b, c and 2 more"),
    ],
)
def test_units_that_are_missing_are_named_or_counted(holes, said):
    assert completeness(replace(ARM, holes=list(holes))).otherwise == said


@pytest.mark.parametrize(
    ("replayed", "said"),
    [
        (Replayed("c", 0.001), None),
        (Replayed("c", 0.0011), "c: replayed losses are 0.0011 nats/token off"),
        (Replayed("c"), "c: replayed losses are no number nats/token off"),
        (Replayed("c", 0.0, fault="stale"), "c: stale"),
    ],
)
def test_a_replay_that_is_off_says_which_cell_and_by_how_much(replayed, said):
    found = replay(replace(ARM, replayed=[Replayed("b", 0.0), replayed]))
    assert found.otherwise == said
