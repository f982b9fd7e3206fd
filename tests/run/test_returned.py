"""What an attack hands over, held against what it has to be: each check by itself."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from harness.api import Adversarial
from harness.base import CellError
from harness.data import Example
from harness.running import returned
from harness.running.returned import Returned

CLEAN = np.arange(8)
GOOD = Adversarial("test/0", CLEAN)
IDS = "expected token ids [n], whole numbers; came "
KNOWN = "expected ids from 0 to 319, which the model has; came "


def taken(**known):
    """Return what takes the results of an attack on one example."""
    example = Example("test/0", "0", prompt_ids=CLEAN, reference_ids=np.arange(4))
    return Returned("the attack 'x'", {"test/0": example}, rows=320, **known)


def written(token):
    return np.array([token, *CLEAN[1:]])


WRONG = {
    "no result": (CLEAN, {}, "yielded a ndarray; expected a harness.api.Adversarial"),
    "nothing": (None, {}, "yielded None; expected"),
    "unasked": ({"example_id": "test/9"}, {}, "the example 'test/9' unasked; expected"),
    "a name of no text": ({"example_id": 3}, {}, "the example 3 unasked"),
    "a text": ({"prompt_ids": "the cat"}, {}, f"{IDS}'the cat'"),
    "no ids": ({"prompt_ids": None}, {}, f"{IDS}None"),
    "a generator": ({"prompt_ids": itertools.count()}, {}, f"{IDS}a count"),
    "a ragged list": ({"prompt_ids": [[1], [2, 3]]}, {}, f"{IDS}a list"),
    "floats": ({"prompt_ids": CLEAN + 0.5}, {}, f"{IDS}an array [8] of float64"),
    "two axes": ({"prompt_ids": CLEAN[None]}, {}, f"{IDS}an array [1, 8] of int64"),
    "empty": ({"prompt_ids": CLEAN[:0]}, {}, "expected one token at least; came none"),
    "too long": ({"prompt_ids": np.tile(CLEAN, 50)}, {}, "at most 80 tokens for a cle"),
    "beyond the positions": ({}, {"positions": 11}, "expected at most 7 tokens for a"),
    "below zero": ({"prompt_ids": written(-3)}, {}, f"{KNOWN}-3"),
    "beyond the model": ({"prompt_ids": written(320)}, {}, f"{KNOWN}320"),
    "a trace of text": ({"trace": "up"}, {}, "`trace` for the example 'test/0': expec"),
    "a step of text": ({"trace": ["up"]}, {}, "expected steps that are mappings; came"),
    "NaN": ({"trace": [{"loss": float("nan")}]}, {}, "expected steps that JSON can ho"),
    "an object": (
        {"trace": [{"of": object()}]},
        {},
        "expected steps that JSON can hol",
    ),
    "too many steps": (
        {"trace": [{}] * 6},
        {},
        "expected at most 5 steps and 100 char",
    ),
    "steps for ever": (
        {"trace": ({} for _ in itertools.count())},
        {},
        "expected at most 5 steps",
    ),
    "a long step": ({"trace": [{"a": "x" * 101}]}, {}, "and 100 characters; came more"),
    "a checkpoint unasked": (
        {"checkpoints": {0.3: CLEAN}},
        {"shares": (0.5,)},
        "expected checkpoints at [0.5]; came ['0.3'], unasked",
    ),
    "a bad checkpoint": (
        {"checkpoints": {0.5: written(-1)}},
        {"shares": (0.5,)},
        "a wrong `checkpoints[0.5]` for the example 'test/0'",
    ),
    "checkpoints in a list": ({"checkpoints": [CLEAN]}, {}, "prompts by the share"),
    "a bad replicate": ({"replicates": [CLEAN, None]}, {}, "a wrong `replicates[1]`"),
    "many replicates": ({"replicates": [CLEAN] * 4}, {}, "expected at most 3 prompts"),
    "replicates of text": ({"replicates": "ab"}, {}, "expected at most 3 prompts"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(name, monkeypatch):
    for limit, value in (("STEPS", 5), ("TRACE_CHARACTERS", 100), ("PROMPTS", 3)):
        monkeypatch.setattr(returned, limit, value)
    found, known, told = WRONG[name]
    result = replace(GOOD, **found) if isinstance(found, dict) else found
    with pytest.raises(CellError) as said:
        taken(**known).checked(result)
    assert str(said.value).startswith("the attack 'x' ")
    assert told in str(said.value)


def test_an_example_comes_once():
    first = taken()
    first.checked(GOOD)
    with pytest.raises(CellError, match="the example 'test/0' twice; expected one"):
        first.checked(GOOD)


@pytest.mark.parametrize("value", [None, [GOOD]])
def test_results_come_from_an_iterator(value):
    with pytest.raises(CellError, match="from `run`; expected an iterator that yields"):
        next(taken().results(lambda: value))


@pytest.mark.parametrize("ids", [CLEAN.tolist(), CLEAN.astype(np.int32)])
def test_what_fits_in_another_form_is_taken(ids):
    """Also a longer prompt, where the budget says that the attack prepends."""
    shares = {"checkpoints": {0.5: ids}, "replicates": iter([ids])}
    found = taken(shares=(0.5, 1.0)).checked(replace(GOOD, prompt_ids=ids, **shares))
    assert found.prompt_ids.dtype == found.checkpoints[0.5].dtype == np.int64
    assert [*found.replicates[0]] == [*found.prompt_ids] == [*CLEAN]
    longer = replace(GOOD, prompt_ids=np.tile(CLEAN, 15))
    for prepended in (4, None):
        assert len(taken(prepended=prepended).checked(longer).prompt_ids) == 120
