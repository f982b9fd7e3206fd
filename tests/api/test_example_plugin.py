"""A plugin in a distribution of its own, built, installed and found."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.api import AttackContext, load_registry
from harness.testing import tiny_examples, tiny_subject

FOLDER = Path(__file__).parents[1] / "example_plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a folder that the example plugin was installed to."""
    source = tmp_path_factory.mktemp("source") / "example"
    shutil.copytree(FOLDER, source)  # a build writes beside what it builds
    target = tmp_path_factory.mktemp("target")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    flags = ["--no-build-isolation", "--no-index", "--target", target]
    subprocess.run([*pip, *flags, source], check=True, capture_output=True)
    return target


def listed(installed, **environment):
    result = subprocess.run(
        [sys.executable, "-m", "harness", "list", "attack", "--json"],
        env={**os.environ, "PYTHONPATH": str(installed), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return {one["name"]: one for one in json.loads(result.stdout)}


@pytest.mark.slow
def test_an_installed_plugin_is_found_by_its_entry_point(installed):
    rotate = listed(installed)["rotate"]
    assert rotate["version"] == "4.5.6"
    assert rotate["source"] == str(installed / "harness_example.py")
    assert rotate["summary"] == "Rotate the prompt by some tokens."


@pytest.mark.slow
def test_the_environment_can_leave_it_out(installed):
    assert "rotate" in listed(installed, HARNESS_PLUGINS="example")
    assert "rotate" not in listed(installed, HARNESS_PLUGINS="")


@pytest.mark.parametrize(("direction", "shift"), [("left", -3), ("right", 3)])
def test_the_plugin_itself_rotates_prompts(example_plugin, direction, shift):
    options = {"tokens": 3, "direction": direction}
    attack = load_registry([example_plugin]).create("attack", "rotate", options)
    examples = tiny_examples()
    results = attack.run(tiny_subject(), examples, AttackContext(seed_key="test"))
    for example, result in zip(examples.test, results, strict=True):
        assert np.array_equal(result.prompt_ids, np.roll(example.prompt_ids, shift))
