"""``harness schema``."""

import json

import jsonschema
import pytest

from harness.api import load_registry
from harness.records import schemas
from harness.suite import suite_schema


def test_suites(cli):
    assert json.loads(cli("schema", "suite").out) == suite_schema(load_registry())


def test_plugins_by_path_are_in_it(cli, example_plugin):
    schema = json.loads(cli("schema", "suite", "--plugins", example_plugin).out)
    assert "attack.rotate" in schema["$defs"]


@pytest.mark.parametrize("kind", ["record", "sample"])
def test_what_is_published(cli, kind):
    schema = json.loads(cli("schema", kind).out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema == schemas.load(kind)


def test_an_unknown_kind_is_a_usage_error(cli):
    assert cli("schema", "suites").code == 2
