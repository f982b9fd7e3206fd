"""The JSON Schema of suites, as a validator and an editor see it."""

from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from harness.api.registry import load_registry
from harness.suite import suite_schema

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def schema():
    return suite_schema(load_registry([ROOT / "tests" / "toy_suite" / "toys.py"]))


def faults(schema, text):
    document = YAML(typ="safe", pure=True).load(text)
    errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return {error.json_path for error in errors}


def toy(text=""):
    return (ROOT / "tests" / "toy_suite" / "base.yaml").read_text() + text


def test_it_is_a_schema_of_its_dialect(schema):
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("suites/*.yaml")), ids=lambda p: p.stem
)
def test_shipped_suites_conform(schema, path):
    assert faults(schema, path.read_text(encoding="utf-8")) == set()


def test_the_toy_suite_conforms(schema):
    assert faults(schema, toy()) == set()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("limits: 3", "$"),
        ("models: {m: {adapter: toi}}", "$.models.m.adapter"),
        ("models: {m: {adapter: toy, pth: x}}", "$.models.m"),
        ("arms: {a: {constraint: toy_softplus, start: ab}}", "$.arms.a.start"),
        ("attacks: {toy_flip: {flips: 0}}", "$.attacks.toy_flip.flips"),
        ("attacks: {x: {attack: toy_flip, flip: 3}}", "$.attacks.x"),
        ("metrics: {toy_metric: {corpsu: x}}", "$.metrics.toy_metric"),
        ("profiles: {p: {seeds: []}}", "$.profiles.p.seeds"),
        (
            "profiles: {p: {attacks: {toy_flip: {x: 1}}}}",
            "$.profiles.p.attacks.toy_flip",
        ),
        ("profiles: {p: {extends: x}}", "$.profiles.p"),
        ("corpora: {'a b': {path: x}}", "$.corpora"),
        ("device: gpu", "$.device"),
        ("claims: {g: {a: {attak: flip}}}", "$.claims.g.a"),
        ("claims: {g: {a: {dL: below 0}}}", "$.claims.g.a.dL"),
    ],
)
def test_wrong_suites_do_not(schema, text, path):
    assert faults(schema, f"extends: base.yaml\n{text}") == {path}


def test_an_entry_may_be_removed_or_be_a_part_of_one(schema):
    text = (
        "extends: b.yaml\nattacks: {toy_flip: null}\nrecovery: {tokens: 3}\n"
        "arms: {a: {start: x}}"
    )
    assert faults(schema, text) == set()


def test_required_keys_are_required_where_nothing_is_extended(schema):
    assert faults(schema, "extends: base.yaml") == set()
    assert faults(schema, "name: x") == {"$"}


def test_options_carry_their_meaning_for_editors(schema):
    options = schema["$defs"]["attack.toy_flip"]["properties"]
    assert options["flips"]["description"] == "How many."
    assert options["flips"]["default"] == 4
    assert set(options) >= {"flips", "stop", "words", "attack", "match"}


def test_every_installed_plugin_can_be_named(schema):
    for info in load_registry().all():
        assert f"{info.kind}.{info.name}" in schema["$defs"]
        names = schema["$defs"][f"{info.kind}.entry"]["properties"]
        key = {"model": "adapter"}.get(info.kind, info.kind)
        assert info.name in names[key]["enum"]
