"""One thing that is wrong: as a line, as JSON, as an annotation."""

from dataclasses import replace

import pytest

from harness.base import Problem, SuiteError

SEEDS = Problem("s.yaml", ("seeds", 0), "is negative", 4, exit_code=2)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "s.yaml:4: seeds.0: is negative"),
        ({"line": None}, "s.yaml: seeds.0: is negative"),
        ({"path": ()}, "s.yaml:4: is negative"),
        ({"file": "", "line": None}, "seeds.0: is negative"),
    ],
)
def test_a_line_says_what_is_known_of_the_place(change, line):
    assert str(replace(SEEDS, **change)) == line


def test_json_has_every_field_and_the_path_in_one_word():
    assert SEEDS.as_json() == {
        "file": "s.yaml",
        "path": "seeds.0",
        "message": "is negative",
        "line": 4,
        "exit_code": 2,
        "severity": "error",
    }


def test_annotations_are_escaped_as_workflow_commands_want_it():
    problem = replace(SEEDS, file="a,b:c.yaml", message="10%\nof it", path=())
    assert problem.as_annotation() == (
        "::error file=a%2Cb%3Ac.yaml,line=4::10%25%0Aof it"
    )
    warning = replace(SEEDS, severity="warning", line=None)
    assert warning.as_annotation() == (
        "::warning file=s.yaml,line=1::seeds.0: is negative"
    )


def test_no_name_hides_anything_or_begins_a_line_of_its_own():
    """Nor a workflow command, which GitHub would obey."""
    hostile = "a\n::error::b\x1b[2J\u202e"
    problem = Problem(hostile, (hostile,), hostile, 3)
    for line in (str(problem), problem.as_annotation()):
        assert "\n" not in line
        assert line.isprintable()
        assert r"\x1b[2J<U+202E>" in line


def test_a_suite_error_says_each_problem_once_by_file_and_line():
    later, other = replace(SEEDS, line=10), replace(SEEDS, file="a.yaml", line=7)
    error = SuiteError([later, SEEDS, other, SEEDS])
    assert error.problems == [other, SEEDS, later]
    assert str(error).splitlines() == [str(other), str(SEEDS), str(later)]
