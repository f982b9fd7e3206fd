"""What all tests share: one thread, no network, and the data beside the project."""

import os
from pathlib import Path

# Before any library reads them. Two threads in each of two workers on two cores would
# be slower than one, and a test that reaches for the network must fail at once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.pop("HARNESS_PLUGINS", None)
os.environ.pop("HARNESS_STORE", None)

import pytest

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder with real texts and models; skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data: {SHARED} is absent")
    return SHARED
