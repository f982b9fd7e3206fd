"""What goes to a device and comes back, without anybody waiting for it.

Arrays that are needed together go by one copy. On a GPU they go through pinned memory,
which torch gives back to nobody before the copy that reads it, or that writes it, is
done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def sent(device: torch.device, *arrays: NDArray[Any]) -> list[Tensor]:
    """Return arrays of integers on a device, as int64, in their shapes."""
    integers = [np.array(array, dtype=np.int64) for array in arrays]
    if device.type != "cuda":
        return [torch.from_numpy(array) for array in integers]
    packed = np.concatenate([array.ravel() for array in integers])
    pinned = torch.from_numpy(packed).pin_memory()
    parts = torch.split(
        pinned.to(device, non_blocking=True), [a.size for a in integers]
    )
    return [part.view(a.shape) for part, a in zip(parts, integers, strict=True)]


def fetched(tensor: Tensor) -> Callable[[], NDArray[Any]]:
    """Begin to copy a tensor to the host; return what waits for that, and no more."""
    if not tensor.is_cuda:
        return tensor.numpy
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    arrived = reached(tensor.device)

    def fetch() -> NDArray[Any]:
        arrived()
        return host.numpy()

    return fetch


def reached(device: torch.device) -> Callable[[], None]:
    """Return what waits until a device has done all that it was given until now."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event.synchronize


def filled(rows: Tensor, count: int) -> Tensor:
    """Repeat the last of some rows until there are so many."""
    return torch.cat([rows, rows[-1:].expand(count - len(rows), *rows.shape[1:])])
