from collections.abc import Callable
from typing import Any

import pytest

CLOCK = {"seconds", "tokens_per_s", "peak_memory_bytes"}


@pytest.fixture
def timeless() -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    """Return what leaves out of a training's lines all that differs from run to run."""
    return lambda lines: [
        {k: v for k, v in line.items() if k not in CLOCK} for line in lines
    ]
