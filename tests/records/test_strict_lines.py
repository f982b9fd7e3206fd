"""Lines are parsed quickly where that is safe, and never less strictly."""

import json
from pathlib import Path

import pytest

from harness.records import SampleRow, samples, strict_json
from harness.records.samples import parse_samples
from tests.run_fixtures import full_row

FILE = Path("samples.jsonl")
HONEST = json.dumps(full_row(3, 2.5, 0.4).model_dump(mode="json"))
DEEP = "[" * 99 + "]" * 99


def parsed(line):
    ((row, problems),) = parse_samples(FILE, [line])
    return row, [str(problem) for problem in problems]


@pytest.fixture
def no_look_at_each_value(monkeypatch):
    def refuse(text):
        raise AssertionError(f"{text} was parsed value by value")

    monkeypatch.setattr(strict_json, "parse_json", refuse)


@pytest.mark.parametrize(
    "change",
    [
        ("", ""),
        ("other words", "\\ud83d\\ude00 caf\u00e9"),
        ("2.5", "0.00012345678901234567"),
        (": ", " :\t"),
        ('"clean_text"', '"choices": [], "clean_text"'),
    ],
)
def test_honest_rows_are_parsed_quickly(no_look_at_each_value, change):
    line = HONEST.replace('"choices": null, ', "").replace(*change)
    assert line != HONEST or change == ("", "")
    assert parsed(line.encode()) == (SampleRow.model_validate_json(line), [])


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('{"step": 1,', '{"step": 1, "step": 1,', "the key 'step' occurs twice"),
        ('{"step": 1,', '{"step" : 1, "step"\t:1,', "the key 'step' occurs twice"),
        ('"gold": null', '"gold": null, "gold": null', "the key 'gold' occurs twice"),
        ('"share": 0.25', '"share": 0.25, "share": 0.25', "'share' occurs twice"),
        ('"verified": 6', '"a": {"b": 1, "b": 2}', "the key 'b' occurs twice"),
        ('"verified": 6', '"a": NaN', "NaN is not JSON"),
        ('"verified": 6', '"a": [-Infinity]', "-Infinity is not JSON"),
        ('"verified": 6', '"a": 1e400', "1e400 is beyond the range of floats"),
        ('"verified": 6', '"a": 1E+400', "1E+400 is beyond the range of floats"),
        ('"verified": 6', f'"a": {"9" * 400}.5', "is beyond the range of floats"),
        ('"verified": 6', f'"a": {2**63}', "is beyond the range of 64 bits"),
        ('"verified": 6', f'"a": [1, -{2**64}]', "is beyond the range of 64 bits"),
        ("[0, 1, 2,", f"[{2**64}, 1, 2,", "is beyond the range of 64 bits"),
        ('"verified": 6', f'"a": {DEEP}', "nested more than 100 levels deep"),
        ('"verified": 6', '"a": "\\ud800"', "it holds half a character"),
        ('"share": 1.0', '"share": "1.0"', "valid number, not"),
        ("}", "", "cannot be read"),
    ],
)
def test_what_no_reader_could_tell_apart_is_still_refused(old, new, sentence):
    line = HONEST.replace(old, new, 1)
    assert line != HONEST
    row, problems = parsed(line.encode())
    assert row is None
    assert sentence in problems[0]
    slowly = strict_json.parse_model(SampleRow, line, FILE, 1)
    assert problems == [str(problem) for problem in slowly[1]]


@pytest.mark.parametrize("text", ['a \\": b', "{[[NaN,[", "e000", "1" * 30])
def test_texts_that_look_like_json_are_texts(text):
    line = HONEST.replace("other words", text)
    row, problems = parsed(line.encode())
    assert problems == []
    assert text.replace("\\", "") in row.adversarial_text


def test_all_keys_of_a_row_are_counted():
    def keys(value):
        if isinstance(value, list):
            return sum(map(keys, value))
        return len(value) + keys([*value.values()]) if isinstance(value, dict) else 0

    assert samples._keys(SampleRow.model_validate_json(HONEST)) == keys(
        json.loads(HONEST)
    )
