"""Suite files merged: what a file extends, the file, a profile, ``--set``, flags.

Later layers win. A mapping merges key by key and anything else replaces; null removes
an entry of the labelled sections. In the merged suite every value still knows which
layer it came from.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.base import SuiteError, UsageError, nearest, shortened, unknown_name
from harness.suite.yaml import MOST_CHARACTERS, Layer, Place, merge, parse

LABELLED = {
    "models": "model",
    "arms": "arm",
    "corpora": "corpus",
    "metrics": "metric",
    "attacks": "attack",
    "claims": "group of claims",
    "profiles": "profile",
}
"""The sections whose keys are labels, and what one entry is called."""
_SOURCES = {
    "models": ({"path"}, {"revision"}),
    "corpora": ({"path", "dataset", "builtin"}, {"revision", "files", "split"}),
}
"""What says where an entry comes from, and what says more of it: a layer that states
one of the first replaces all of them."""
_MOST_STEPS = 20
"""Of the key after ``--set``: no value of a suite lies deeper."""
MOST_FILES = 20
"""How many files may extend each other."""
_READ_FIRST = ("extends", "profiles")


def read_layers(
    path: Path,
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Layer:
    """Return a suite file, merged, with what is wrong with its layers.

    `overrides` are the texts after ``--set``; `flags` are other values given on the
    command line, by key, of which ``plugins`` adds to the suite's and the rest replace.

    Raises UsageError if there is no such file, SuiteError if one is no YAML mapping.
    """
    if not os.path.isfile(path):  # noqa: PTH113 - of any name
        raise UsageError(f"no such suite: {shortened(str(path))}{_near_file(path)}")
    suite = _read_files(path)
    suite.value = {"name": path.stem, **suite.value}
    if profile is not None:
        suite = _lay(suite, _profile(suite, profile))
    for text in overrides:
        suite = _lay(suite, _override(suite, text))
    for key, value in (flags or {}).items():
        suite = _lay(suite, _flag(suite, key, value))
    _finish(suite)
    return suite


def profile_names(path: Path) -> list[str]:
    """Return the profiles that a suite file and what it extends define."""
    return list(_read_files(path).mapping("profiles"))


# --- files --------------------------------------------------------------------------


def _read_files(path: Path) -> Layer:
    """Read a file onto what it extends; `name` is not inherited."""
    chain, files = [path], [_read_file(path)]
    while target := _extended(files[-1], chain):
        chain.append(target)
        files.append(_read_file(target))
    suite = Layer({}, dict(files[0].places))
    for file in reversed(files):
        suite.value.pop("name", None)
        file.value.pop("extends", None)
        suite = _lay(suite, file)
    return suite


def _read_file(path: Path) -> Layer:
    file = Layer(None, {(): Place(str(path), None, path.parent)})
    try:
        if path.stat().st_size > 4 * MOST_CHARACTERS:  # a character has at most 4 bytes
            file.complain((), f"is larger than {MOST_CHARACTERS:,} characters")
        else:
            place = Place(str(path), 1, path.parent)
            known = _parsed(path.read_text(encoding="utf-8"), place)
            value = copy.deepcopy(known.value)  # layers are merged in place
            file = Layer(value, dict(known.places), [*known.problems])
    except UnicodeDecodeError as error:
        file.complain((), f"is not UTF-8 text (byte {error.start})")
    except OSError as error:
        file.complain((), f"cannot be read: {error.strerror}")
    if not isinstance(file.value, dict):
        if file.value is not None or not file.problems:
            what = "is empty" if file.value is None else "expected a mapping of keys"
            file.complain((), what)
        raise SuiteError(file.problems)  # what its keys lack is not known
    return file


@lru_cache(maxsize=8)
def _parsed(text: str, place: Place) -> Layer:
    """Parse a file, once for all of its profiles; what is returned is not changed."""
    return parse(text, place)


def _extended(file: Layer, chain: Sequence[Path]) -> Path | None:
    """Return the file that the last of a chain extends; None where it extends none."""
    stated = file.get("extends")
    if stated is None:
        return None
    if not isinstance(stated, str):
        file.complain(("extends",), "expected the path of a suite")
        return None
    target = Path(os.path.normpath(chain[-1].parent / stated))
    if len(chain) >= MOST_FILES:
        message = f"is the {MOST_FILES}th file that is extended: no more are read"
        file.complain(("extends",), message)
    elif any(_same(target, other) for other in chain):
        names = " -> ".join(map(str, (*chain, target)))
        file.complain(("extends",), f"goes round in a circle: {names}")
    elif not os.path.isfile(target):  # noqa: PTH113 - of any name
        message = f"no such file: {shortened(str(target))}{_near_file(target)}"
        file.complain(("extends",), message)
    else:
        return target
    return None


def _same(first: Path, second: Path) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)


def _near_file(path: Path) -> str:
    try:
        names = sorted(file.name for file in path.parent.glob("*.yaml"))
    except (OSError, ValueError):  # what no folder can be called
        return ""
    near = nearest(path.name, names)
    return f"; did you mean {path.parent / near}?" if near else ""


# --- layers -------------------------------------------------------------------------


def _lay(below: Layer, above: Layer) -> Layer:
    """Merge; what a layer removes or replaces leaves nothing of the one below it."""
    for section in LABELLED:
        entries = above.mapping(section)
        removed = [label for label, entry in entries.items() if entry is None]
        for label in removed:
            if label not in below.mapping(section) and not above.hopeless:
                message = _nothing_to_remove(section, label, entries, below)
                above.complain((section, label), message)
        # Else a profile that adjusts an entry would bring a piece of it back.
        for profile in below.mapping("profiles"):
            _drop(below.mapping("profiles", profile, section), removed)
    for section, (sources, details) in _SOURCES.items():
        for label, entry in above.entries(section):
            if sources & entry.keys():
                _drop(below.mapping(section, label), sources | details)
    return merge(below, above)


def _drop(mapping: dict[str, Any], keys: Iterable[str]) -> None:
    for key in keys:
        mapping.pop(key, None)


def _nothing_to_remove(
    section: str, label: str, entries: Collection[str], below: Layer
) -> str:
    owners = [x for x in entries if x != label and label.startswith(f"{x}-")]
    if section == "attacks" and owners:
        return (
            "removes an entry that is only added when the suite is loaded; "
            f"`controls` of {owners[0]!r} says which are, [] for none"
        )
    near = nearest(label, below.mapping(section))
    hint = f"did you mean {near!r}?" if near else ""
    return (
        "is empty, which removes an entry, and there is none to remove; "
        f"{hint or 'write {} for an entry without options'}"
    )


def _profile(suite: Layer, name: str) -> Layer:
    known = suite.mapping("profiles")
    if known.get(name) is None:
        nothing = Layer({}, {(): Place(f"--profile {shortened(name)}", None, Path())})
        nothing.complain((), unknown_name("profile", name, known))
        return nothing
    path = ("profiles", name)
    if not isinstance(known[name], dict):
        suite.complain(path, "expected a mapping of keys")
        return Layer({}, {(): suite.place(path)})
    _refuse_read_first(suite, path, "a profile")
    places = {k[2:]: place for k, place in suite.places.items() if k[:2] == path}
    return Layer(copy.deepcopy(known[name]), places)


def _flag(suite: Layer, key: str, value: Any) -> Layer:
    stated = suite.get(key) if key == "plugins" else None
    before = stated if isinstance(stated, list) else []
    place = Place(f"--{key.replace('_', '-')}", None, Path.cwd())
    flag = Layer.at(place, {key: [*before, *value] if before else value})
    for index in range(len(before)):
        flag.places[key, index] = suite.place((key, index))
    return flag


def _finish(suite: Layer) -> None:
    """Drop the removed entries, and labelled sections that were left empty."""
    for section in LABELLED:
        entries = suite.mapping(section)
        _drop(entries, [label for label, entry in entries.items() if entry is None])
        if suite.get(section) is None:
            suite.value.pop(section, None)


def _refuse_read_first(layer: Layer, path: tuple[str, ...], what: str) -> None:
    """Complain of what cannot be changed once the layers are chosen."""
    for key in _READ_FIRST:
        if key in layer.mapping(*path):
            message = f"cannot be changed by {what}: it is read before"
            layer.complain((*path, key), message)


# --- overrides ----------------------------------------------------------------------


def _override(suite: Layer, text: str) -> Layer:
    """Read ``KEY=VALUE``; the suite says which keys there are: labels may hold dots."""
    key, equals, value = text.partition("=")
    place = Place(f"--set {key.strip()}", None, Path.cwd())
    if not (key.strip() and equals):
        nothing = Layer({}, {(): place})
        nothing.complain((), f"expected KEY=VALUE, got {text!r}")
        return nothing
    if key.count(".") > _MOST_STEPS:
        nothing = Layer({}, {(): Place("--set", None, Path.cwd())})
        nothing.complain((), f"a key of more than {_MOST_STEPS} steps leads nowhere")
        return nothing
    override = parse(value, place)
    if isinstance(override.value, dict) and not value.lstrip().startswith("{"):
        override.value = value.strip()  # a slice such as 60%: is no mapping
    path = _path(suite, key.strip().split("."), override)
    nested = override.value if path else {}
    for step in reversed(path):
        nested = {step: nested}
    override = replace(Layer.at(place, nested), problems=override.problems)
    _refuse_read_first(override, (), "--set")
    return override


def _path(suite: Layer, segments: list[str], override: Layer) -> list[str]:
    """Split a dotted key where the suite has keys, longest first.

    A whole entry may be new; a single option needs an entry that is there: else this
    is complained of, and there is no path.
    """
    path: list[str] = []
    while segments:
        known = suite.mapping(*path)
        joins = [".".join(segments[:n]) for n in range(len(segments), 0, -1)]
        step = next((join for join in joins if join in known), None)
        if step is None and len(path) == 1 and path[0] in LABELLED:
            if isinstance(override.value, dict) or override.value is None:
                return [*path, joins[0]]
            label = ".".join(segments[:-1] or segments)
            override.complain((), unknown_name(LABELLED[path[0]], label, known))
            return []
        path.append(step or segments[0])
        segments = segments[path[-1].count(".") + 1 :]
    return path
