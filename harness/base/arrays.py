"""Arrays that are passed from room to room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ids = NDArray[np.int64]
    """Token ids [n]."""
else:
    Ids = Any  # modules that only name it stay light
