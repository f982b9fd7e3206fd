"""What a plugin prints is no part of what a command answers a program."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOISY = str(Path(__file__).with_name("noisy.py"))
SAID = ["printed by Python", "written to descriptor 1", "printed by a hook"]


@pytest.mark.parametrize(
    "command",
    [
        ("list", "attack", "--json"),
        ("schema", "suite"),
        ("validate", "--format", "json", "base.yaml"),
    ],
)
@pytest.mark.usefixtures("toy_suite")
def test_standard_output_is_json_alone(command):
    done = subprocess.run(
        [sys.executable, "-m", "harness", *command, "--plugins", NOISY],
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout)
    for line in SAID:
        assert line in done.stderr.splitlines()


def test_within_a_process_too(cli):
    found = cli("list", "attack", "--json", "--plugins", NOISY)
    assert "noisy" in [one["name"] for one in json.loads(found.out)]
    assert "printed by Python" in found.err


def test_where_nobody_asked_for_json_a_plugin_may_print(cli):
    found = cli("list", "attack", "--plugins", NOISY)
    assert "printed by a hook" in found.out
