"""Commands of a Slurm that only writes down what it is told."""

import os
import stat

import pytest

SBATCH = """#!/bin/bash
n=$(( $(ls "$FAKE_SLURM"/*.sh 2> /dev/null | wc -l) + 1 ))
[ ! -e "$FAKE_SLURM/full" ] || { echo "sbatch: error: invalid account" >&2; exit 1; }
cp "$1" "$FAKE_SLURM/$n.sh"
env > "$FAKE_SLURM/$n.env"
echo "Submitted batch job $n"
"""
SQUEUE = """#!/bin/bash
[ ! -e "$FAKE_SLURM/down" ] || { echo "squeue: error: Unable to contact" >&2; exit 1; }
cat "$FAKE_SLURM/queue" 2> /dev/null
exit 0
"""
OTHERS = """#!/bin/bash
echo "$(basename "$0") $*" >> "$FAKE_SLURM/said"
"""


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """Return the folder where what is submitted ends up; `queue` in it is squeue's."""
    commands, place = tmp_path / "commands", tmp_path / "fake"
    commands.mkdir()
    place.mkdir()
    texts = {"sbatch": SBATCH, "squeue": SQUEUE, "scancel": OTHERS, "srun": OTHERS}
    for name, text in texts.items():
        (commands / name).write_text(text)
        (commands / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(place))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-settings"))
    monkeypatch.delenv("HARNESS_CLUSTER", raising=False)
    return place
