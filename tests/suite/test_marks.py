"""Strings that name something else are found wherever they stand."""

from typing import Annotated

from harness.api import ATTACK, CORPUS, LOCAL_PATH, AttackLabel, CorpusName, LocalPath
from harness.base import Strict
from harness.suite.marks import marked


class Inner(Strict):
    """A part of a model."""

    corpus: CorpusName
    name: str = "plain"


class Outer(Strict):
    """Marks in unions, lists, tuples, mappings and other models."""

    later: Inner | None = None
    of: AttackLabel | list[AttackLabel] | None = None
    paths: tuple[LocalPath, ...] = ()
    by_label: dict[str, Inner] = {}
    counted: Annotated[int, "no string"] = 1


def test_marks_are_found_in_the_model_s_order_with_their_paths():
    value = {
        "by_label": {"x": {"corpus": "c"}, "y": {"name": "z"}},
        "paths": ["a", "b"],
        "of": ["one", "two"],
        "later": {"corpus": "d", "name": "e"},
        "counted": 3,
    }
    assert list(marked(Outer, value)) == [
        (CORPUS, "d", ("later", "corpus")),
        (ATTACK, "one", ("of", 0)),
        (ATTACK, "two", ("of", 1)),
        (LOCAL_PATH, "a", ("paths", 0)),
        (LOCAL_PATH, "b", ("paths", 1)),
        (CORPUS, "c", ("by_label", "x", "corpus")),
    ]
    assert list(marked(Outer, {"of": "one"})) == [(ATTACK, "one", ("of",))]


def test_what_is_wrong_names_nothing():
    wrong = {"later": 5, "of": {"one": 2}, "paths": "a", "by_label": ["x"]}
    assert list(marked(Outer, wrong)) == []
    assert list(marked(Outer, [])) == []
