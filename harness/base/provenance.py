"""With what, where and when: versions, code state, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = (
    "harness",
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "datasets",
    "lm-eval",
    "numpy",
    "scipy",
    "pluggy",
    "pydantic",
)


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def utc_after(moment: str, seconds: float) -> str:
    """Return the time so long after a moment: a clock may be set back meanwhile."""
    later = datetime.fromisoformat(moment) + timedelta(seconds=seconds)
    return later.isoformat(timespec="seconds")


@lru_cache
def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that shape results."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@lru_cache
def code_state() -> tuple[str | None, bool | None]:
    """Return the commit of the harness's code, and whether the tree differed.

    Both are None where the code is installed rather than checked out.
    """
    here = Path(__file__).parent
    commit = _git(here, "rev-parse", "HEAD")
    if commit is None or _git(here, "ls-files", "--error-unmatch", __file__) is None:
        return None, None
    changes = _git(here, "status", "--porcelain", "--untracked-files=no")
    return commit, bool(changes)


def hardware(device: str) -> dict[str, Any]:
    """Describe the machine and the device that a unit ran on."""
    found: dict[str, Any] = {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": available_cores(),
        "memory_bytes": _memory_bytes(),
        "device": device,
    }
    if device.startswith("cuda"):
        import torch

        found["device_name"] = torch.cuda.get_device_name(device)
        found["device_memory_bytes"] = torch.cuda.get_device_properties(
            device
        ).total_memory
        found["cuda"] = torch.version.cuda
    return found


def available_cores() -> int:
    """Count the cores this process may use: the job's, not the node's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
