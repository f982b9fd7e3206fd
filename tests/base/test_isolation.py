"""What libraries do to the process stays inside the block."""

from __future__ import annotations

import logging
import random
import sys
import types
import warnings

import numpy as np
import pytest
import torch

from harness.base import fixed_random_state, offline, silenced


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
