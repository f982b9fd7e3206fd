"""The global random generators: seeded here, and kept from being reseeded."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch."""
    from transformers import set_seed

    set_seed(seed)


@contextmanager
def untouched_random_state() -> Iterator[None]:
    """Restore the state of all global random generators after the block.

    Evaluation libraries reseed them, which would tie what comes after to what was
    measured before.
    """
    import numpy as np
    import torch

    python, cpu = random.getstate(), torch.get_rng_state()
    numpy = np.random.get_state()  # noqa: NPY002 - libraries still draw from it
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
