"""What cannot be seen is spelt out, and nothing else is changed."""

import json
import unicodedata

import pytest

from harness.base import visible, visible_json

HIDDEN = [
    chr(i)
    for i in range(0x110000)
    if unicodedata.category(chr(i)) in ("Cc", "Cf", "Cs", "Zl", "Zp")
]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b2J", r"\x9b2J"),
        ("a\u202eb\u2066c", "a<U+202E>b<U+2066>c"),
        ("over\rwritten\x08\x7f\0", r"over\rwritten\x08\x7f\x00"),
        ("half \ud800", "half <U+D800>"),
        ("tag \U000e0041, end\u2028", "tag <U+E0041>, end<U+2028>"),
        ("two\nlines\tand tab", "two\nlines\tand tab"),
        ("naïve 東京 ± 🙂 \u0301", "naïve 東京 ± 🙂 \u0301"),
    ],
)
def test_what_is_hidden_is_spelt_out(text, shown):
    assert visible(text) == shown


def test_a_line_stays_one():
    assert visible("a\nb\tc\r\n", line=True) == r"a\nb\tc\r\n"


def test_nothing_hidden_is_left_and_nothing_is_hidden_twice():
    shown = visible("".join(HIDDEN), line=True)
    assert shown.isascii()
    assert shown.isprintable()
    assert visible(shown, line=True) == shown
    shown.encode()  # no half characters either


def test_json_says_the_same():
    value = {" ".join(HIDDEN): ["é東", "\x1b[2J\u202e\x85\ud800"]}
    text = visible_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value
    assert not set(text) & set(HIDDEN) - {"\n"}
    assert "é東" in text
