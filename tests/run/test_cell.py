import numpy as np

from harness.data.document import Example
from harness.records.record import Cost
from harness.run.cell import PartialRows
from harness.run.scored import failed_row


def row(name):
    example = Example(name, name, np.array([1, 2]), np.array([3]))
    return failed_row(example, clean_loss=None, error="nothing came back")


def test_rows_and_what_they_cost_survive_a_restart(tmp_path):
    path = tmp_path / "partial.jsonl"
    first = PartialRows(path)
    first.add(row("a"), Cost(sequences_forward=3, flops=1.5, seconds=0.5))
    first.add(row("b"), Cost(sequences_forward=4, flops=2.0, seconds=0.25))

    again = PartialRows(path)

    assert list(again.rows) == ["a", "b"]
    assert again.cost == Cost(sequences_forward=7, flops=3.5, seconds=0.75)
    assert (first.restarts, again.restarts) == (0, 1)


def test_a_torn_last_line_is_dropped_and_the_file_goes_on(tmp_path):
    path = tmp_path / "partial.jsonl"
    PartialRows(path).add(row("a"), Cost())
    with path.open("a") as file:
        file.write('{"row": {"example_id": "b"')  # the machine went away here

    again = PartialRows(path)
    again.add(row("c"), Cost())

    assert list(again.rows) == ["a", "c"]
    assert list(PartialRows(path).rows) == ["a", "c"]


def test_a_file_that_is_torn_in_its_first_line_starts_afresh(tmp_path):
    path = tmp_path / "partial.jsonl"
    path.write_text('{"row": {"exam')
    assert PartialRows(path).rows == {}
    assert path.read_text() == ""
