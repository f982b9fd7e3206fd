"""The mutants of a small module: which there are, and that tests can kill them."""

import subprocess
import sys
import textwrap

import pytest

from tests import mutants

SOURCE = '''
"""A docstring with 1 number."""
LEVEL = 0.99
_LIMIT = 3


def word(x, values: "list[int] | None" = None, flag=False):
    if flag and x <= _LIMIT:
        return "pass"
    return f"{x + 1}" if any(v - 1 > 0 for v in values) else "warn"
'''
WORDS = {"pass": "warn", "warn": "pass"}


def test_every_kind_of_change_is_made_once():
    changes = [(x.function, x.change) for x in mutants.mutants("m", SOURCE, WORDS)]
    assert changes == [
        ("", "0.99 -> 0.98"),
        ("", "0.99 -> 0.995"),
        ("", "3 -> 4"),
        ("", "3 -> 2"),
        ("word", "False -> True"),
        ("word", "flag and x <= _LIMIT -> flag or x <= _LIMIT"),
        ("word", "flag and x <= _LIMIT -> x <= _LIMIT"),
        ("word", "flag and x <= _LIMIT -> flag"),
        ("word", "x <= _LIMIT -> x < _LIMIT"),
        ("word", "x <= _LIMIT -> x > _LIMIT"),
        ("word", "'pass' -> 'warn'"),
        (
            "word",
            "any((v - 1 > 0 for v in values)) -> not any((v - 1 > 0 for v in values))",
        ),
        ("word", "any -> all"),
        ("word", "v - 1 > 0 -> v - 1 >= 0"),
        ("word", "v - 1 > 0 -> v - 1 < 0"),
        ("word", "v - 1 -> v + 1"),
        ("word", "1 -> 2"),
        ("word", "1 -> 0"),
        ("word", "0 -> 1"),
        ("word", "0 -> -1"),
        ("word", "'warn' -> 'pass'"),
    ]


def test_a_change_reaches_functions_classes_and_importers(tmp_path, monkeypatch):
    source = textwrap.dedent("""
        import functools
        from dataclasses import dataclass
        LIMIT = 3
        @dataclass
        class Box:
            size: int = 5
            @functools.cached_property
            def double(self): return self.size * 2
        @functools.lru_cache
        def above(x, by=7): return x > LIMIT + by
    """)
    (tmp_path / "mutated_module.py").write_text(source)
    (tmp_path / "importing_module.py").write_text(
        "from dataclasses import dataclass\n"
        "from mutated_module import LIMIT, Box, above\n"
        "@dataclass\n"
        "class Frame:\n"
        "    limit: int = LIMIT\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import importing_module
    import mutated_module

    def changed(change):
        found = mutants.mutants("mutated_module", source, {})
        (number,) = [x.number for x in found if x.change == change]
        assert mutants.apply(mutated_module, mutants.mutated(source, number, {}))
        return importing_module

    assert changed("3 -> 4").LIMIT == 4
    assert importing_module.Frame().limit == 4
    assert changed("5 -> 6").Box().size == 6
    assert changed("self.size * 2 -> self.size / 2").Box(8).double == 4
    assert changed("7 -> 8").above.__wrapped__.__defaults__ == (8,)
    assert changed("x > LIMIT + by -> x < LIMIT + by").above(0)


@pytest.mark.parametrize(
    ("source", "change", "lines"),
    [
        ("def f(x):\n    return g(\n        x,\n        1,\n    )\n", "1 -> 2", (2, 5)),
        (
            "def f(x):\n    if x and (\n        x > 1\n    ):\n        y()\n",
            "1 -> 2",
            (2, 4),
        ),
        ("def f(x, n=1):\n    y = x\n    return y\n", "1 -> 2", (1, 3)),
        (
            "@g\ndef f(x):\n    return [\n        y + 1 for y in x\n    ]\n",
            "1 -> 2",
            (3, 5),
        ),
        ("N = 1\n", "1 -> 2", (0, sys.maxsize)),
    ],
)
def test_a_change_runs_when_a_line_of_its_expression_does(source, change, lines):
    """Of a default value, a line of its function; of a module's constant, any line."""
    found = mutants.mutants("m", source, {})
    assert {x.lines for x in found if x.change == change} == {lines}


SURVIVED = [
    "survived, line 2: judged:judged: x > 1 -> x >= 1",
    "survived, line 2: judged:judged: 1 -> 0",
    "survived, line 6: judged:never: x + 1 -> x - 1",
    "survived, line 6: judged:never: 1 -> 2",
    "survived, line 6: judged:never: 1 -> 0",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "flags", "printed"),
    [
        (None, [], SURVIVED),
        ("test_judged.py::test_else", [], []),
        ("test_judged.py::test_else", ["--leave-out-failing"], SURVIVED),
        ("test_more.py", [], []),
        ("test_more.py", ["--leave-out-failing"], SURVIVED),
    ],
)
def test_what_tests_notice_dies_and_the_rest_is_printed(
    tmp_path, broken, flags, printed
):
    (tmp_path / "judged.py").write_text(
        "def judged(x):\n    return x > 1\n\n\ndef never(x):\n    return x + 1\n"
    )
    (tmp_path / "test_judged.py").write_text(
        "from judged import judged\n\n\ndef test_it():\n"
        "    assert judged(2)\n    assert not judged(0)\n"
        f"\n\ndef test_else():\n    assert 'else' not in {broken or ''!r}\n"
    )
    # A process of two comes to this file from the first test of the other.
    more = (
        "import nowhere" if broken == "test_more.py" else "def test_more():\n    pass"
    )
    (tmp_path / "test_more.py").write_text(f"{more}\n")
    command = [sys.executable, "-m", "tests.mutants", "--jobs", "2", *flags]
    command += ["--only", "judged"]
    command += ["--tests", str(tmp_path)]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run(
        command,
        cwd=mutants.HERE.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert broken is None or broken in done.stdout + done.stderr
    lines = [x for x in done.stdout.splitlines() if x.startswith("survived")]
    assert lines == printed
