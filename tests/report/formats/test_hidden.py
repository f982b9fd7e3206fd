"""What others wrote reaches no format as it is: not a code, not a line of its own."""

import json

import pytest

from harness.report import render
from harness.report.content import Column, Label, Missing, Report, Table
from harness.report.writing import write_reports

HOSTILE = "\x1b]0;pwned\x07\u202egnp.exe\u2069\x9b2J\ud800"
SPELT = {
    "text": r"\x1b]0;pwned\x07<U+202E>gnp.exe<U+2069>\x9b2J<U+D800>",
    "markdown": r"\\x1b\]0;pwned\\x07\<U+202E\>gnp.exe\<U+2069\>\\x9b2J\<U+D800\>",
    "latex": r"\textbackslash{}x1b]0;pwned\textbackslash{}x07\ensuremath{<}U+202E",
    "json": r"\u001b]0;pwned\u0007\u202egnp.exe\u2069\u009b2J\ud800",
}


def report(text):
    column = Column(text, Label, text)
    table = Table(
        "key",
        text,
        [Column("arm", Label), column, column],
        [[Label("a"), Label(text), Missing(text)]],
        text,
        notes=[text],
    )
    return Report(text, [("suite", text)], [text], [table], [("commit", text)])


@pytest.mark.parametrize("style", SPELT)
def test_codes_and_controls_of_direction_are_spelt_out(style):
    made = render(report(HOSTILE), style)
    assert not set(made) & set(HOSTILE) - set(SPELT["text"])
    assert SPELT[style] in made.replace("\n", "")
    made.encode()


def test_files_are_written_in_the_same_way(tmp_path):
    write_reports(report(HOSTILE), tmp_path)
    for path in tmp_path.glob("report.*"):
        text = path.read_text(encoding="utf-8")
        assert not set(text) & set(HOSTILE) - set(SPELT["text"]), path.name


@pytest.mark.parametrize("style", ["text", "markdown", "latex"])
def test_no_name_begins_a_line_of_its_own(style):
    made = render(report("arm\n# VERDICT: harder\n| x |\n\\input{y}"), style)
    begun = {line.lstrip("> *")[:9] for line in made.splitlines()}
    assert not begun & {"# VERDICT", "| x |", "\\input{y}"}


def test_json_is_read_back_as_it_was():
    assert json.loads(render(report(HOSTILE), "json"))["title"] == HOSTILE
