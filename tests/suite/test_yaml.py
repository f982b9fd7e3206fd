"""YAML 1.2, and where everything in it stands."""
# ruff: noqa: E501 - in the table of what is wrong, a message is a line

import math
from pathlib import Path

import pytest

from harness.suite.yaml import Layer, Place, merge, parse

START = Place("s.yaml", 1, Path())


def read(text):
    document = parse(text, START)
    return document, [str(problem) for problem in document.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),  # a string in YAML 1.1
        ("3e8", 300_000_000),
        ("3.0e8", 3e8),
        ("010", 10),  # octal in YAML 1.1
        ("0o10", 8),
        ("0x1F", 31),
        ("-0x1F", -31),
        ("1_000", 1000),
        ("+7", 7),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("on", "on"),  # booleans in YAML 1.1
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("True", True),
        ("false", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("'42'", "42"),
        ('"true"', "true"),
        ("2024-01-01", "2024-01-01"),  # a date in YAML 1.1
        ("12:30:45", "12:30:45"),  # sexagesimal in YAML 1.1
        (":80%", ":80%"),
    ],
)
def test_scalars_mean_what_they_mean_in_yaml_1_2(text, value):
    document, problems = read(f"key: {text}\n")
    assert problems == []
    found = document.get("key")
    assert found == value
    assert type(found) is type(value)


def test_whole_numbers_and_others_keep_their_types():
    found = read("[1, 1.0, 1e3, 1.5e3, .nan]")[0].value
    assert [type(value) for value in found] == [int, float, int, float, float]
    assert math.isnan(found[4])


def test_every_value_knows_its_line():
    document, _ = read("a:\n  b: 1\n  c:\n    - x\n    - y: 2\nd: 3\n")
    paths = [("a",), ("a", "b"), ("a", "c", 1), ("a", "c", 1, "y"), ("d",)]
    assert [document.place(path).line for path in paths] == [1, 2, 5, 5, 6]
    assert document.place(("a", "c", 7)).line == 3  # what it would be in


def test_an_alias_is_placed_where_it_is_used():
    document, problems = read("a: &x {p: 1}\nb: *x\n")
    assert problems == []
    assert document.value == {"a": {"p": 1}, "b": {"p": 1}}
    assert document.place(("b",)).line == 2


def test_steps_that_lead_nowhere_are_passed_over():
    document, _ = read("a:\n  b: [1, 2]\n")
    followed = document.follow(["a", "dict[str,int]", "b", 1, "int"])
    assert (document.get(*followed), followed) == (2, ("a", "b", 1))


WRONG = {
    "a: 1\nb: 2\na: 3\n": "s.yaml:3: a: is stated twice (first: s.yaml:1)",
    "x:\n  a: 1\n  a: 2\n": "s.yaml:3: x.a: is stated twice (first: s.yaml:2)",
    "a: [1\nb: 2\n": "s.yaml:2: is no YAML: expected ',' or ']', but got ':'",
    "a: b: c\n": "s.yaml:1: is no YAML: mapping values are not allowed here",
    "a: *x\n": "s.yaml:1: is no YAML: found undefined alias 'x'",
    "a: 1\n---\nb: 2\n": "s.yaml:2: is no YAML: but found another document",
    "a: 1\nb:\n  <<: {c: 2}\n": "s.yaml:3: b: YAML 1.2 has no merge keys (<<); use extends, or state the keys",
    "? [1]\n: 2\n": "s.yaml:1: a key must be plain text",
    "a: !ruby x\n": "s.yaml:1: a: the tag !ruby means nothing here",
    "a: 1\nb: !!int many\n": "s.yaml:2: b: is no int",
    "a: !!bool maybe\n": "s.yaml:1: a: is no bool",
    "a: !!int ''\n": "s.yaml:1: a: is no int",
    "a: &x {b: *x}\n": "s.yaml:1: a.b: refers to itself",
    "a: \x01\n": 's.yaml:1: is no YAML: unacceptable character #x0001: special characters are not allowed in "<unicode string>", position 3',
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said_with_its_line(text):
    assert read(text)[1] == [WRONG[text]]


def test_duplicates_are_all_found_and_the_first_one_counts():
    document, problems = read("a: 1\na: 2\nb: 3\nb: 4\n")
    assert len(problems) == 2
    assert document.value == {"a": 1, "b": 3}


def test_of_very_many_faults_the_first_are_said():
    """Each takes time to say, and nobody reads them."""
    _, problems = read("a: 1\n" * 2000)
    assert len(problems) == 200
    assert problems[0] == "s.yaml:2: a: is stated twice (first: s.yaml:1)"


def test_mappings_merge_and_all_else_replaces():
    flag = Place("--set a", None, Path())
    below = Layer.at(START, {"a": {"x": 1, "y": [1, 2]}, "b": {"z": 1}})
    above = Layer.at(flag, {"a": {"y": [3]}, "b": 5})
    merged = merge(below, above)
    assert merged.value == {"a": {"x": 1, "y": [3]}, "b": 5}
    assert merged.place(("a", "x")) == START
    # What was replaced has no place of its own left.
    replaced = [("a", "y"), ("a", "y", 0), ("a", "y", 1), ("b", "z")]
    assert {merged.place(path) for path in replaced} == {flag}


def test_a_problem_of_a_flag_names_the_key_once():
    flag = Place("--set a.b", None, Path())
    assert str(flag.problem(("a", "b"), "is wrong")) == "--set a.b: is wrong"
    assert (
        str(flag.problem(("a", "b", "c"), "is wrong")) == "--set a.b: a.b.c: is wrong"
    )
