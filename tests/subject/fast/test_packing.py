import torch

from harness.subject.fast.packing import Packing


def test_rows_are_packed_from_their_start_on():
    ids = torch.arange(15).view(3, 5)

    packing = Packing.of(ids, [0, 2, 4])

    assert packing.packed(ids).tolist() == [[0, 1, 2, 3, 4, 7, 8, 9, 14]]
    assert packing.positions.tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 4]
    assert packing.first.tolist() == [0, 5, 8]
    assert packing.starts.tolist() == [0, 2, 4]
    states = packing.packed(ids)[..., None]
    assert packing.last(states, 1)[:, :, 0].tolist() == [[4], [9], [14]]


def test_the_last_states_of_each_row_are_found():
    ids = torch.arange(12).view(2, 6)
    packing = Packing.of(ids, [3, 1])
    states = packing.packed(ids)[..., None]
    assert packing.last(states, 2)[:, :, 0].tolist() == [[4, 5], [10, 11]]


def test_entire_rows_are_packed_as_those_of_which_nothing_was_read():
    ids = torch.arange(15).view(3, 5)
    found, expected = Packing.entire(ids), Packing.of(ids, [0, 0, 0])

    assert found.whole == expected.whole
    for name in ("starts", "first", "rows", "positions"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
        assert getattr(found, name).dtype == getattr(expected, name).dtype, name
