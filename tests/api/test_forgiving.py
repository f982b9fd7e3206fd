"""Hooks: called by pluggy in its order, and no failure goes further than a warning."""

import pytest

from harness.api import PluginWarning, load_registry
from harness.base import PluginError, Stopped

PLUGIN = """
from pathlib import Path

LOG = Path(__file__).with_name("log")

def log(text):
    with LOG.open("a") as file:
        file.write(text + " ")

"""
BEFORE, AFTER = "log('{name}<')", "log('{name}>')"


@pytest.fixture
def call(write, tmp_path):
    """Return a function: load plugins, start a cell, and return what they logged."""

    def call(**plugins: str) -> str:
        paths = [
            write(name, PLUGIN + code.format(name=name))
            for name, code in plugins.items()
        ]
        registry = load_registry(paths)
        registry.hook.cell_started(cell_id="c", variant_id="v", attack="a")
        return (tmp_path / "log").read_text().strip()

    return call


def tracker(*lines: str, **marks: bool) -> str:
    body = "\n    ".join(lines or ["log('{name}')"])
    return f"@hookimpl(**{{{marks}}})\ndef cell_started(cell_id):\n    {body}\n"


def test_a_hook_gets_the_arguments_that_it_takes(call):
    assert call(one=tracker("log(cell_id)")) == "c"


def test_the_last_one_registered_is_called_first_unless_marked(call):
    assert call(a=tracker(), b=tracker(), c=tracker()) == "c b a"
    assert (
        call(
            a=tracker(tryfirst=True), b=tracker(trylast=True), c=tracker(), d=tracker()
        )
        == "c b a a d c b"
    )


def test_a_wrapper_is_around_the_others(call):
    around = tracker(BEFORE, "yield", AFTER, wrapper=True)
    assert call(a=around, b=tracker(), c=tracker(tryfirst=True)) == "a< c b a>"


def test_an_old_wrapper_is_around_the_others(call):
    around = tracker(BEFORE, "(yield).get_result()", AFTER, hookwrapper=True)
    assert call(a=around, b=tracker()) == "a< b a>"


FAIL = "raise OSError('disk full')"


@pytest.mark.parametrize(
    ("bad", "logged"),
    [
        (tracker(FAIL), "c a"),
        (tracker("import sys", "sys.exit(0)"), "c a"),
        (tracker(FAIL, "yield", wrapper=True), "c a"),
        (tracker(BEFORE, "yield", FAIL, wrapper=True), "b< c a"),
        (tracker(BEFORE, "yield", FAIL, hookwrapper=True), "b< c a"),
        (tracker(BEFORE, "yield", "yield", wrapper=True), "b< c a"),
    ],
)
def test_a_tracker_that_raises_warns_and_the_others_are_called(call, bad, logged):
    with pytest.warns(PluginWarning, match=r"b\.py .*in cell_started") as caught:
        assert call(a=tracker(), b=bad, c=tracker()) == logged
    assert len(caught) == 1
    expected = {FAIL: "disk full", "sys.exit": "SystemExit"}
    for line, text in expected.items():
        assert (line in bad) == (text in str(caught[0].message))


def test_a_stop_is_no_failure_of_the_tracker(call):
    stop = tracker("from harness.base import Stopped", "raise Stopped('now')")
    with pytest.raises(Stopped, match="now"):
        call(a=tracker(), b=stop)


METRIC = """
from harness.api import Metric

class {cls}(Metric):
    '''Measures nothing.'''
    name = "{cls}"
    measure = summarise = lambda *_: None

"""
OFFER = "@hookimpl\ndef register_metrics():\n    return [{cls}]\n"
AROUND = (
    "@hookimpl(wrapper=True)\ndef register_metrics():\n    found = yield\n    {line}"
)


def offered(write, around: str) -> dict[str, str]:
    paths = [write(name, (METRIC + OFFER).format(cls=name)) for name in ("one", "two")]
    around = METRIC.format(cls="three") + AROUND.format(line=around)
    infos = load_registry([*paths, write("around", around)]).all("metric")
    return {x.name: x.version for x in infos if x.name in ("one", "two", "three")}


def test_a_wrapper_can_take_plugins_away_and_add_some(write):
    left = "return [[x for x in xs if x.name != 'one'] for xs in found]"
    assert set(offered(write, left)) == {"two"}
    assert set(offered(write, "return [*found, [three]]")) == {"one", "two", "three"}


def test_a_wrapper_that_raises_leaves_what_is_offered_as_it_is(write):
    with pytest.warns(PluginWarning, match="in register_metrics"):
        assert set(offered(write, "1 / 0")) == {"one", "two"}


def test_a_wrapper_that_returns_something_else_is_an_error(write):
    with pytest.raises(PluginError, match="a wrapper of register_metrics returns no"):
        offered(write, "return None")


def test_a_hook_that_offers_no_list_is_left_out_with_a_warning(write):
    bad = write(
        "bad", "register_metrics = hookimpl(lambda: 3, specname='register_metrics')"
    )
    good = write("good", (METRIC + OFFER).format(cls="good"))
    with pytest.warns(PluginWarning, match="'int' object is not iterable"):
        assert load_registry([bad, good]).get("metric", "good")


def test_a_hook_that_need_not_exist_is_no_misspelling(write):
    code = "@hookimpl(optionalhook=True)\ndef of_a_later_version():\n    pass\n"
    assert load_registry([write("later", code + OFFER.format(cls=""))])
