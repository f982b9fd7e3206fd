"""``harness list``."""

import json

import harness_plugins
from harness.api import load_registry


def test_it_lists_every_plugin_under_its_kind(cli, example_plugin):
    outcome = cli("list", "--plugins", example_plugin)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    for info in load_registry([example_plugin]).all():
        heading = lines.index(f"{info.kind}s")
        assert any(line.split()[:1] == [info.name] for line in lines[heading:])


def test_a_kind_limits_the_list(cli, example_plugin):
    outcome = cli("list", "attack", "--plugins", example_plugin, "--json")
    found = json.loads(outcome.out)
    assert {one["kind"] for one in found} == {"attack"}
    assert "rotate" in {one["name"] for one in found}


def test_an_unknown_kind_is_a_usage_error(cli):
    assert cli("list", "attackers").code == 2


def test_shipped_plugins_say_what_they_do_and_where_they_are(cli):
    for one in json.loads(cli("list", "--json").out):
        assert one["summary"].endswith("."), one["name"]
        assert one["source"].startswith(harness_plugins.__path__[0])


def test_every_option_of_a_shipped_plugin_has_a_meaning(cli):
    for one in json.loads(cli("list", "--json").out):
        for option in one["options"]:
            assert option["meaning"], f"{one['name']}.{option['name']}"
