"""What a search holds at shares of its steps."""

import pytest

from harness.search.course import Course


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (16, {0.125: 2, 0.25: 4, 0.5: 8}),
        (10, {0.125: 1, 0.25: 2, 0.5: 5}),  # 1.25 and 2.5 steps, rounded down
        (1, {0.125: 0, 0.25: 0, 0.5: 0}),  # none fits: what it begins with
    ],
)
def test_no_more_steps_count_than_fit_into_a_share(steps, expected):
    course = Course((0.125, 0.25, 0.5), steps)
    for step in range(steps + 1):
        course.note(step, step)
    assert course.held == expected


def test_a_search_that_ends_early_goes_on_holding_what_it_has():
    course = Course((0.125, 0.25, 0.5), 16)
    for step in range(4):
        course.note(step, f"after {step}")
    assert [*course.held.values()] == ["after 2", "after 3", "after 3"]


def test_a_share_that_rounding_put_below_a_whole_step_is_that_step():
    assert Course((), 100).within(0.29) == 29  # 0.29 * 100 is below 29
