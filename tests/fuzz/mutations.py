"""Changes of files: of their values, which stay well formed, and of their bytes."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from typing import Any

HIDDEN = ["\x1b[2J", "\u202e", "\u2066", "\x9b31m", "\x07", "\u2028", "\x7f", "\x85"]
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, 5e-324, 2**31, 2**53, 2**63),
    *(10**30, float("nan"), float("inf"), float("-inf"), [], {}, [[]], [{}], {"": {}}),
    *("", " ", "nan", "1e400", "null", "auto", "none", "baseline", "a" * 3000, "é東🙂"),
    *("..", "../..", "/", "/etc/passwd", "/dev/zero", "/proc/self/mem", "~", "~root"),
    *("a/../b", "a\nb", "a\tb", "\0", "x\0y", "\ud800", "\udc80", "-", "--", "%s%n"),
    *("{}", "[", "'", '"', "*", "&a", "<<", "!!int abc", "0x" + "f" * 40, "1_0", "0o7"),
    *("@DEEP:60@", "@DEEP:400@", "@DEEP:5000@", "@INT:25@", "@INT:5000@", "@LONG:9@"),
    *HIDDEN,
]
"""What stands for a value; what is between @ is spelt out in the text."""
BYTES = [
    *(
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xff",
        b"\x00",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\r\n",
    ),
    *(b"\r", b"\t", b"\x1b[2J", b"\xe2\x80\xae", b"\xc2\x85", b"\xe2\x80\xa8", b"\n"),
    *(b"&a [*a]", b"*a", b"&a ", b"<<: *a", b"!!int abc", b"!!binary x", b"!!set {a}"),
    *(b"!!python/object/apply:os.system [ls]", b"!x ", b"%YAML 9.9\n", b"%TAG ! x\n"),
    *(b"\n---\n", b"\n...\n", b"? ", b"- ", b": ", b"|\n", b">-\n", b"'", b'"', b"#"),
    *(b"{", b"}", b"[", b"]", b",", b"\\", b"\\ud800", b"\\u202e", b"\\x00", b"NaN"),
    *(b"-Infinity", b"1e999", b"9" * 5000, b"[" * 500, b"{a: " * 300, b"  " * 500),
    *(b'{"a":' * 2000, b"[" * 20000, b"# " + b"x" * 20000, b"k: v\n" * 3000),
]
_SPELT = re.compile(r'"@(DEEP|INT|LONG):(\d+)@"')


def changed_value(rng: random.Random, value: Any) -> Any:
    """Return plain values with one to three changes."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = [*_places(value)]
        if places:
            rng.choice(_CHANGES)(rng, *rng.choice(places), value)
    return value


def written(rng: random.Random, value: Any) -> bytes:
    """Return values as JSON, which is YAML too; keys may stand twice in it."""
    text = json.dumps(
        value,
        ensure_ascii=rng.random() < 0.5,
        indent=rng.choice((None, 1)),
        allow_nan=True,
    )
    return _SPELT.sub(_spell, text).encode("utf-8", "surrogatepass")


def changed_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return a file with one to four changes of its bytes."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(len(data) + 1)
        stop = min(len(data), start + rng.choice((0, 1, 1, 4, 40, 400)))
        cut = data[start:stop]
        others = (
            *(rng.choice(BYTES), rng.choice(BYTES) + cut, b"", cut * 3),
            *(rng.randbytes(len(cut)), _lines_exchanged(rng, cut)),
        )
        data = data[:start] + rng.choice(others) + data[stop:]
    if rng.random() < 0.05:
        data = data[: rng.randrange(len(data) + 1)]
    if rng.random() < 0.03:
        data = data.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-32")))
    if rng.random() < 0.03:
        data = data.replace(b"\n", b"\r\n")
    return data


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container and key of a value."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _odd(rng: random.Random, holder: Any, key: Any, whole: Any) -> None:
    holder[key] = copy.deepcopy(rng.choice(ODD))


def _drop(rng: random.Random, holder: Any, key: Any, whole: Any) -> None:
    del holder[key]


def _rename(rng: random.Random, holder: Any, key: Any, whole: Any) -> None:
    if isinstance(holder, dict):
        text = str(key)
        cut = rng.randrange(len(text) + 1)
        names = (text[:cut] + text[cut + 1 :], text + "s", str(rng.choice(ODD)), text)
        holder[rng.choice(names)] = holder.pop(key)


def _exchange(rng: random.Random, holder: Any, key: Any, whole: Any) -> None:
    other, there = rng.choice([*_places(whole)])
    holder[key] = copy.deepcopy(other[there])


def _retype(rng: random.Random, holder: Any, key: Any, whole: Any) -> None:
    value = holder[key]
    holder[key] = rng.choice(([value], {"a": value}, str(value)[:100], [value] * 200))


def _adjust(rng: random.Random, holder: Any, key: Any, whole: Any) -> None:
    value = holder[key]
    if isinstance(value, str):
        cut = rng.randrange(len(value) + 1)
        holder[key] = value[:cut] + str(rng.choice(ODD)) + value[cut:]
    elif isinstance(value, int | float):
        holder[key] = value * rng.choice((-1, 0, 1.0, 10, 1e9, 1 + 1e-7))
    elif isinstance(value, list):
        holder[key] = value * rng.choice((0, 2, 100))
    elif isinstance(value, dict):
        holder[key] = value | {f"k{i}": None for i in range(rng.choice((1, 20, 3000)))}


_CHANGES = (_odd, _odd, _odd, _drop, _rename, _exchange, _retype, _adjust, _adjust)


def _lines_exchanged(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def _spell(match: re.Match[str]) -> str:
    what, count = match[1], int(match[2])
    if what == "DEEP":
        return "[" * count + "]" * count
    if what == "INT":
        return "9" * count
    return '"' + "x" * 10**5 + '"'
