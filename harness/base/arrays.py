"""Arrays that are passed from room to room."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
"""Token ids [n]."""
