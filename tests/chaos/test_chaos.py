"""A few disturbances of a real run; `make chaos` is for many."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_runs_that_are_disturbed_end_as_one_that_is_not():
    chaos = [sys.executable, "-m", "tests.chaos", "--seed", "11"]
    chaos += ["--kills", "5", "--stops", "3", "--full-disks", "1"]
    ended = subprocess.run(chaos, cwd=ROOT, text=True, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "5 kills, 3 stops and " in ended.stdout
    assert " 0 differences" in ended.stdout
