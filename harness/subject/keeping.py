"""Where compiled kernels are kept, for the processes to come."""

from __future__ import annotations

import os
from pathlib import Path


def keep_compiled(folder: Path) -> None:
    """Have torch and triton keep what they compile in a folder, and look there first.

    Where the environment says of another place, that stands. What is kept is found by
    its source, the versions of both, and the device.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "torch"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))
