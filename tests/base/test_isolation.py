"""What libraries do to the process stays inside the block."""

from __future__ import annotations

import contextlib
import logging
import random
import resource
import signal
import sys
import time
import types
import warnings

import numpy as np
import pytest
import torch

from harness.base import (
    TimeUp,
    addressed_bytes,
    fixed_random_state,
    memory_limit,
    offline,
    silenced,
    time_limit,
)


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_random_state_is_fixed_inside_and_restored_after():
    with fixed_random_state(3):
        first = draw()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    expected = draw()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    with fixed_random_state(3):
        assert draw() == first
        random.seed(0)
    assert draw() == expected


def test_random_state_is_restored_after_an_error():
    state = random.getstate()
    with pytest.raises(RuntimeError, match="broken"), fixed_random_state(0):
        raise RuntimeError("broken")
    assert random.getstate() == state


def test_bars_logs_and_warnings_are_silenced_inside_only(capfd, monkeypatch):
    import tqdm

    noisy = types.ModuleType("lm_eval.noisy")
    noisy.tqdm = tqdm.tqdm
    monkeypatch.setitem(sys.modules, "lm_eval.noisy", noisy)
    logger = logging.getLogger("lm_eval")
    with silenced("lm_eval"):
        assert list(noisy.tqdm([1, 2], disable=False)) == [1, 2]
        assert not logger.isEnabledFor(logging.WARNING)
        assert logger.isEnabledFor(logging.ERROR)
        warnings.warn("chatter", stacklevel=1)
    assert capfd.readouterr() == ("", "")
    assert noisy.tqdm is tqdm.tqdm
    assert logger.isEnabledFor(logging.WARNING)


def test_nothing_calls_out_while_offline(monkeypatch, tmp_path, no_network):
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    with offline(), pytest.raises(ConnectionError, match="nobody/nothing"):
        datasets.load_dataset("nobody/nothing", cache_dir=str(tmp_path))
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


def test_time_that_is_over_is_an_exception_that_libraries_do_not_swallow():
    def library():
        for _ in range(3):
            with contextlib.suppress(Exception):
                time.sleep(2)

    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeUp), time_limit(0.05):
        library()
    with time_limit(0.05):
        pass
    time.sleep(0.1)  # nothing comes after the block
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_time_that_is_over_comes_again_until_the_block_is_left():
    seen = []
    with pytest.raises(TimeUp), time_limit(0.02):
        try:
            time.sleep(9)
        except TimeUp:
            seen.append("swallowed")
        time.sleep(9)
    assert seen == ["swallowed"]


def test_memory_beyond_a_limit_is_refused_and_the_limit_ends_with_the_block():
    now = addressed_bytes()
    assert now is not None
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(MemoryError), memory_limit(now + 2**28):
        bytearray(2**29)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert len(bytearray(2**29)) == 2**29
