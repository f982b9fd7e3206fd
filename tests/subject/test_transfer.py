import numpy as np
import torch

from harness.subject.transfer import fetched, filled, sent

CPU = torch.device("cpu")


def test_what_is_sent_comes_back_and_is_nobody_else_s():
    arrays = [np.arange(6).reshape(2, 3), np.array([7], dtype=np.int32), np.empty(0)]
    arrays[0].flags.writeable = False

    tensors = sent(CPU, *arrays)
    tensors[1] += 1

    assert [tensor.dtype for tensor in tensors] == 3 * [torch.int64]
    assert arrays[1] == 7
    np.testing.assert_array_equal(fetched(tensors[0])(), arrays[0])
    np.testing.assert_array_equal(fetched(tensors[1])(), [8])


def test_the_last_row_fills_up():
    rows = torch.arange(6).view(3, 2)

    assert filled(rows, 5).tolist() == [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]]
    assert torch.equal(filled(rows, 3), rows)
