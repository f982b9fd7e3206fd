"""The margin: what a suite states, and whether it was stated in time."""

import pytest

from harness.records import Margin, margin_change

TENTH = Margin(relative=0.1)


@pytest.mark.parametrize(
    ("stated", "margin", "text"),
    [
        ("10 %", TENTH, "10 %"),
        ("2.5%", Margin(relative=0.025), "2.5 %"),
        (0.05, Margin(nats=0.05), "0.05 nats/token"),
    ],
)
def test_a_margin_is_read_and_written_as_a_suite_states_it(stated, margin, text):
    assert (Margin.of(stated), str(margin)) == (margin, text)


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ([], None),
        ([TENTH, TENTH], None),
        ([TENTH, None], "margin changed after 1 record, from none to 10 %"),
        (
            [Margin(nats=0.05), TENTH, Margin(nats=0.05)],
            "margin changed after 2 records, from 0.05 nats/token to 10 %",
        ),
    ],
)
def test_a_margin_that_came_after_results_is_told(stated, told):
    assert margin_change(TENTH, stated) == told
