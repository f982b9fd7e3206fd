"""The pages of plugins are what the command prints, and their examples are suites."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from harness.api import describe, load_registry
from harness.cli import pages
from harness.suite import load_experiment

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "plugins"
FOUND = [describe(info) for info in load_registry().all()]
IDS = [pages.file_of(one) for one in FOUND]


@pytest.mark.parametrize("found", FOUND, ids=IDS)
def test_a_page_is_what_the_command_prints(cli, found):
    kind = ("--kind", found.kind)
    printed = cli("describe", found.name, *kind, "--format", "markdown").out
    assert (FOLDER / pages.file_of(found)).read_text() == printed, "run `make docs`"
    assert all(f"| `{option.name}` |" in printed for option in found.options)
    assert found.summary in printed
    assert all(paper.who in printed for paper in found.papers)


def test_every_page_is_of_a_plugin_and_in_both_lists(cli):
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(["README.md", *IDS])
    front, index = (ROOT / "README.md").read_text(), (FOLDER / "README.md").read_text()
    assert pages.with_tables(front, FOUND) == front, "run `make docs`"
    assert index == f"{pages.HEAD}\n\n{pages.contents(FOUND)}\n", "run `make docs`"
    for line in cli("list").out.splitlines():
        if line.startswith("  "):  # the others name kinds
            name, summary = line.split(maxsplit=1)
            assert f"[`{name}`](" in front
            assert summary.rstrip(".").replace("|", "\\|") in front


SUITE = """
models:
  mine: {adapter: pythia, path: ./my-model}
arms:
  baseline: {}
  monotone: {constraint: softplus}
seeds: [1]
corpora:
  train: {builtin: python-topics, slice: ":50%"}
  search: {builtin: python-topics, slice: "50%:60%"}
  validation: {builtin: python-topics, slice: "60%:70%"}
  test: {builtin: python-topics, slice: "70%:"}
recovery: {corpus: train, tokens: 100000}
examples:
  test: {corpus: test, count: 4}
  search: {corpus: search, count: 4}
  validation: {corpus: validation, count: 4}
attacks:
  hotflip: {}
  uat: {}
"""


@pytest.mark.parametrize("found", FOUND, ids=IDS)
def test_the_example_of_a_page_is_a_part_of_a_suite(tmp_path, found):
    yaml = YAML(typ="safe", pure=True)
    page = (FOLDER / pages.file_of(found)).read_text()
    stated = yaml.load(page.split("```yaml\n")[1].split("```")[0])
    whole = yaml.load(SUITE)
    for section, entries in stated.items():
        whole[section] = {**whole.get(section, {}), **entries}
    (tmp_path / "suite.yaml").write_text(json.dumps(whole))  # which is YAML
    experiment = load_experiment(tmp_path / "suite.yaml")
    section, entries = next(iter(stated.items()))
    (label,) = entries
    assert experiment.plugins[section][label].name == found.name
