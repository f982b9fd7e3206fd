"""Suite files merged: extends, profiles, overrides, flags."""
# ruff: noqa: E501 - in the tables of wrong suites, a message is a line

from pathlib import Path

import pytest

from harness.base.errors import SuiteError, UsageError
from harness.suite import validate_suite
from harness.suite.layers import profile_names, read_layers


def read(text, *, files=(), **layers):
    """Write files into the current folder; return the merged suite and problems."""
    for name, content in {**dict(files), "suite.yaml": text}.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content, encoding="utf-8")
    suite = read_layers(Path("suite.yaml"), **layers)
    return suite, [str(problem) for problem in suite.problems]


def refused(text):
    """Return what is said of a file that holds no mapping of keys."""
    with pytest.raises(SuiteError) as caught:
        read(text)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_layers_win_in_their_order():
    files = {"base.yaml": "a: 1\nb: 1\nc: 1\nd: 1\ne: 1\n"}
    text = (
        "extends: base.yaml\nb: 2\nc: 2\nd: 2\ne: 2\nprofiles:\n  p: {c: 3, d: 3, e: 3}"
    )
    suite, problems = read(
        text, files=files, profile="p", overrides=["d=4", "e=4"], flags={"e": 5}
    )
    assert problems == []
    found = suite.value
    assert [found[key] for key in "abcde"] == [1, 2, 3, 4, 5]


def test_every_value_names_the_layer_it_came_from():
    files = {"sub/base.yaml": "a: 1\nmodels:\n  m: {x: 1}\n"}
    suite, _ = read(
        "extends: sub/base.yaml\nb: 2\nprofiles:\n  p:\n    c: 3\n",
        files=files,
        profile="p",
        overrides=["models.m.x=2"],
        flags={"batch_size": 5},
    )
    places = {key: str(suite.place([key])) for key in ("a", "b", "c", "batch_size")}
    assert places == {
        "a": "sub/base.yaml:1",
        "b": "suite.yaml:2",
        "c": "suite.yaml:5",
        "batch_size": "--batch-size",
    }
    assert str(suite.place(("models", "m", "x"))) == "--set models.m.x"


def test_paths_are_relative_to_the_layer_that_states_them():
    suite, _ = read(
        "extends: sub/base.yaml\nb: 2\n",
        files={"sub/base.yaml": "a: 1\n"},
        overrides=["c=1"],
    )
    bases = [suite.place([key]).base for key in "abc"]
    assert bases == [Path("sub"), Path(), Path.cwd()]


def test_a_suite_extends_a_suite_that_extends_a_suite():
    files = {
        "one/a.yaml": "x: 1\ny: 1\nz: 1\n",
        "two/b.yaml": "extends: ../one/a.yaml\ny: 2\nz: 2\n",
    }
    suite, problems = read("extends: two/b.yaml\nz: 3\n", files=files)
    assert problems == []
    assert suite.value == {"name": "suite", "x": 1, "y": 2, "z": 3}


@pytest.mark.parametrize(("own", "name"), [("", "suite"), ("name: other", "other")])
def test_the_name_is_the_files_own(own, name):
    files = {"base.yaml": "name: base\n"}
    assert read(f"extends: base.yaml\n{own}", files=files)[0].value["name"] == name


def test_null_removes_an_entry():
    text = "extends: base.yaml\nattacks:\n  b: null\n"
    files = {"base.yaml": "attacks:\n  a: {}\n  b: {}\n"}
    suite, problems = read(text, files=files)
    assert problems == []
    assert suite.value["attacks"] == {"a": {}}


def test_null_in_an_option_is_a_value():
    suite, _ = read("attacks:\n  a: {stop: null}\n")
    assert suite.value["attacks"] == {"a": {"stop": None}}


def test_what_is_removed_stays_removed_in_inherited_profiles():
    base = "metrics:\n  a: {}\n  b: {}\nprofiles:\n  p:\n    metrics: {b: {n: 1}}\n"
    text = "extends: base.yaml\nmetrics: {b: null}\n"
    suite, problems = read(text, files={"base.yaml": base}, profile="p")
    assert problems == []
    assert suite.value["metrics"] == {"a": {}}


def test_an_own_profile_can_bring_back_what_was_removed():
    text = "extends: base.yaml\nmetrics: {b: null}\nprofiles: {p: {metrics: {b: {}}}}"
    suite, _ = read(text, files={"base.yaml": "metrics: {b: {n: 1}}"}, profile="p")
    assert suite.value["metrics"] == {"b": {}}


def test_an_empty_section_is_no_section():
    suite, problems = read("attacks:\nmetrics:\nrecovery:\n")
    assert problems == []
    assert suite.value == {"name": "suite", "recovery": None}


def test_a_source_of_text_replaces_a_source_of_another_kind():
    text = "corpora: {c: {dataset: d/e, files: x, revision: r, text: t, slice: ':9'}}"
    suite, _ = read(text, overrides=["corpora.c.path=f.jsonl"])
    corpus = suite.value["corpora"]["c"]
    assert corpus == {"text": "t", "slice": ":9", "path": "f.jsonl"}


def test_a_path_replaces_the_revision_of_the_path_below_it():
    text = "models: {m: {path: a/b, revision: step3, dtype: x}}"
    elsewhere, _ = read(text, overrides=["models.m.path=./c"])
    assert elsewhere.value["models"]["m"] == {"dtype": "x", "path": "./c"}
    newer, _ = read(text, overrides=["models.m={path: a/c, revision: step4}"])
    assert newer.value["models"]["m"]["revision"] == "step4"


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("models.pythia-1.4b.path=3", ("models", "pythia-1.4b", "path")),
        ("models.pythia-1.path=3", ("models", "pythia-1", "path")),
        ("arms.a.b=3", ("arms", "a.b")),
        ("arms.a.b.c=3", ("arms", "a.b", "c")),
        ("recovery.tokens=3", ("recovery", "tokens")),
        ("limit=3", ("limit",)),
    ],
)
def test_an_override_takes_the_longest_key_that_is_there(override, path):
    text = (
        "models: {pythia-1: {}, pythia-1.4b: {path: x}}\n"
        "arms: {a: {}, a.b: {}}\nrecovery: null\n"
    )
    suite, problems = read(text, overrides=[override])
    assert problems == []
    assert (suite.get(*path), suite.follow(path)) == (3, path)


def test_an_override_may_bring_a_whole_new_entry_with_a_dotted_label():
    suite, problems = read("arms: {a: {}}", overrides=["arms.b-0.5={start: abs}"])
    assert problems == []
    assert suite.value["arms"] == {"a": {}, "b-0.5": {"start": "abs"}}


def test_overrides_are_yaml():
    suite, _ = read("a: 1", overrides=["a=[1e-3, on, {b: 'x=y'}]", "c=", "d=null"])
    expected = {"a": [0.001, "on", {"b": "x=y"}], "c": None, "d": None}
    assert suite.value == {"name": "suite", **expected}


def test_an_override_that_ends_in_a_colon_is_a_slice():
    suite, _ = read("a: 1", overrides=["a=60%:", "b={60%: }"])
    assert (suite.value["a"], suite.value["b"]) == ("60%:", {"60%": None})


def test_plugins_of_the_command_line_add_to_the_suites():
    suite, _ = read("plugins: [a.py]", flags={"plugins": ["/b.py"], "seeds": [3]})
    assert suite.value["plugins"] == ["a.py", "/b.py"]
    assert suite.value["seeds"] == [3]


UNREADABLE = {
    "": "suite.yaml:1: is empty",
    "# seeds: [1]\n": "suite.yaml:1: is empty",
    "- 1\n": "suite.yaml:1: expected a mapping of keys",
    "seeds: [1\narms: {}\n": "suite.yaml:2: is no YAML: expected ',' or ']', but got ':'",
}
FILES = {
    "a: 1\nextends: bas.yaml\n": "suite.yaml:2: extends: no such file: bas.yaml; did you mean base.yaml?",
    "extends: 3\n": "suite.yaml:1: extends: expected the path of a suite",
    "extends: loop.yaml\n": "loop.yaml:1: extends: goes round in a circle: suite.yaml -> loop.yaml -> suite.yaml",
    "attacks:\n  hotflip:\n": "suite.yaml:2: attacks.hotflip: is empty, which removes an entry, and there is none to remove; write {} for an entry without options",
    "attacks: {flip: {}, flip-random: null}": "suite.yaml:1: attacks.flip-random: removes an entry that is only added when the suite is loaded; `controls` of 'flip' says which are, [] for none",
}
PROFILES = {
    "metrics: {lambada: {}}\nprofiles:\n  smoke:\n    metrics: {lambda: null}\n": "suite.yaml:4: metrics.lambda: is empty, which removes an entry, and there is none to remove; did you mean 'lambada'?",
    "profiles: {smok: {}, full: {}}\n": "--profile smoke: unknown profile 'smoke'; did you mean 'smok'? (known: full, smok)",
    "profiles: {smoke: [1]}\n": "suite.yaml:1: profiles.smoke: expected a mapping of keys",
    "profiles:\n  smoke:\n    extends: x.yaml\n": "suite.yaml:3: profiles.smoke.extends: cannot be changed by a profile: it is read before",
}
OVERRIDES = {
    "profiles={}": "--set profiles: cannot be changed by --set: it is read before",
    "a": "--set a: expected KEY=VALUE, got 'a'",
    "a=[1": "--set a: is no YAML: expected ',' or ']', but got '<stream end>'",
    "arms.monotne.start=abs": "--set arms.monotne.start: unknown arm 'monotne'; did you mean 'monotone'? (known: monotone)",
}


@pytest.mark.parametrize("text", UNREADABLE)
def test_of_a_file_that_cannot_be_read_nothing_else_is_said(text):
    assert refused(text) == UNREADABLE[text]
    problems = validate_suite(Path("suite.yaml"))
    assert [str(problem) for problem in problems] == [UNREADABLE[text]]


@pytest.mark.parametrize("text", FILES)
def test_what_is_wrong_with_a_file_is_said_with_its_line(text):
    files = {"base.yaml": "a: 1\n", "loop.yaml": "extends: suite.yaml\n"}
    assert read(text, files=files)[1] == [FILES[text]]


@pytest.mark.parametrize("text", PROFILES)
def test_what_is_wrong_with_a_profile_is_said_with_its_line(text):
    assert read(text, profile="smoke")[1] == [PROFILES[text]]


@pytest.mark.parametrize("override", OVERRIDES)
def test_what_is_wrong_with_an_override_is_said_with_its_flag(override):
    found = read("arms: {monotone: {}}", overrides=[override])[1]
    assert found == [OVERRIDES[override]]


def test_text_that_is_not_utf8_is_named():
    Path("wrong.yaml").write_bytes(b"a: \xff\n")
    assert refused("extends: wrong.yaml") == "wrong.yaml: is not UTF-8 text (byte 3)"


def test_a_file_that_is_not_there_is_a_usage_error():
    Path("pythia.yaml").touch()
    with pytest.raises(UsageError, match=r"no such suite: pythi\.yaml; did you mean"):
        read_layers(Path("pythi.yaml"))


def test_profiles_of_what_is_extended_count():
    Path("base.yaml").write_text("profiles: {smoke: {}, full: {}}")
    Path("suite.yaml").write_text("extends: base.yaml\nprofiles: {quick: {}}")
    assert profile_names(Path("suite.yaml")) == ["smoke", "full", "quick"]
