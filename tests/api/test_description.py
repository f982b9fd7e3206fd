"""Types of options in words."""

from typing import Annotated, Any, Literal

import pydantic
import pytest

from harness.api import CorpusName, LocalPath, Metric, Options, PluginInfo, describe


class Window(Options):
    size: int = 4


@pytest.mark.parametrize(
    ("type_", "words"),
    [
        (bool, "boolean"),
        (int | None, "integer or null"),
        (Annotated[float, pydantic.Field(ge=0, lt=1)], "number >= 0, < 1"),
        (Literal["both", "in"], "both | in"),
        (Literal["one"], "one"),
        (tuple[str, ...], "list of string"),
        (list[int], "list of integer"),
        (tuple[int, float], "[integer, number]"),
        (CorpusName, "name of a corpus"),
        (tuple[CorpusName, ...], "list of name of a corpus"),
        (LocalPath | None, "local path or hub id or null"),
        (Window, "object"),
        (Any, "any"),
    ],
)
def test_types_read_as_words(type_, words):
    (option,) = _describe(pydantic.create_model("O", __base__=Options, x=(type_, ...)))
    assert (option.type, option.required, option.default) == (words, True, None)


def test_defaults_are_json():
    model = pydantic.create_model(
        "O", __base__=Options, a=(Window, Window()), b=(tuple[int, ...], (1, 2))
    )
    assert [option.default for option in _describe(model)] == [{"size": 4}, [1, 2]]


def _describe(options):
    class Thing(Metric):
        """Do a thing."""

        name = "thing"
        Options = options
        measure = summarise = None

    return describe(PluginInfo("metric", "thing", Thing, "here", "1")).options
