"""Change the rule and the statistics bit by bit, and see that the tests notice.

    python -m tests.mutants --jobs 2
    python -m tests.mutants --jobs 16 --only harness.records.crossed

Every comparison, connective, arithmetic operator, number, condition, extreme,
quantifier, correction and word in the syntax trees of `MODULES` is changed in turn.
All tests run once unchanged, so that libraries are imported and fixtures of the session
are made, and once more in forks, which see the lines that each test runs. Each mutant
is a fork that gets the changed code in place of the old, and runs the tests that ran
the changed lines, quick and successful killers first, up to the first failure. Prints
the mutants that no test notices, and exits with 1 if there are any beside those in
`equivalent_mutants.txt`.
"""

from __future__ import annotations

import ast
import functools
import gc
import importlib
import itertools
import mmap
import os
import pickle
import pkgutil
import signal
import sys
import tempfile
import time
import types
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click
import pytest

HERE = Path(__file__).parent
EQUIVALENT = HERE / "equivalent_mutants.txt"
MODULES = (
    "harness.records.crossed",
    "harness.records.statistics",
    "harness.verdicts",
)
"""Modules, and packages with all that is in them."""
TESTS = ("tests/records", "tests/verdicts", "tests/benchmarks")
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_PAIRS = [
    ("min", "max"),
    ("any", "all"),
    ("minimum", "maximum"),
    ("nanmin", "nanmax"),
    ("fmin", "fmax"),
    ("floor", "ceil"),
    ("lower", "upper"),
    ("p_below", "p_above"),
]
SWAPPED = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
CORRECTIONS = {"holm", "abs", "sorted"}
"""Functions that a mutant leaves out, giving back what they were given."""


# --- what is changed ---------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """One change of one module."""

    module: str
    function: str
    """The name of the innermost function around it, or empty."""
    lines: tuple[int, int]
    """The first and last line that run when what is changed does."""
    around: tuple[int, int]
    """The first and last line of that function, or of the module."""
    line: int
    change: str
    """Old and new expression."""
    nth: int
    """Which of the same changes in the function it is, from 1."""
    number: int
    """Which of the module's changes it is."""
    constant: str = ""
    """The private module constant that it is in, or empty."""

    @property
    def key(self) -> str:
        """Name it by what stays when lines move."""
        nth = f" ({self.nth})" * (self.nth > 1)
        return f"{self.module}:{self.function}: {self.change}{nth}"


def mutants(module: str, source: str, words: dict[str, str]) -> list[Mutant]:
    """List every change of a module; `words` says which stands in for which."""
    tree = ast.parse(source)
    seen: dict[tuple[str, str], int] = {}
    found = []
    for number, site in enumerate(_sites(tree, words)):
        function = site.function
        name = "" if function is None else function.name
        change = f"{_text(site.node)} -> {_text(site.replacement)}"
        nth = seen[name, change] = seen.get((name, change), 0) + 1
        around = _span(function or tree)
        lines = around if function is None else _span(site.whole)
        line = getattr(site.node, "lineno", 0)
        constant = _private_constant(tree, line) if function is None else ""
        found.append(
            Mutant(module, name, lines, around, line, change, nth, number, constant)
        )
    return found


def mutated(source: str, number: int, words: dict[str, str]) -> ast.Module:
    """Return the syntax tree of a module with its change of that number."""
    tree = ast.parse(source)
    site = next(itertools.islice(_sites(tree, words), number, None))
    setattr(site.parent, site.field, site.value)
    return ast.fix_missing_locations(tree)


Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Site:
    """Where a node may be replaced, and by what."""

    parent: ast.AST
    field: str
    value: Any
    """The field's new value: the replacement, or the list that holds it."""
    node: ast.AST
    replacement: ast.AST
    function: Function | None
    whole: ast.AST
    """The expression that it is a part of; of a default value, the function."""


def _sites(tree: ast.Module, words: dict[str, str]) -> Iterator[Site]:
    """Walk all expressions that run, in a fixed order."""

    def walk(node: ast.AST, inner: Function | None, whole: ast.AST) -> Iterator[Site]:
        inner = node if isinstance(node, Function) else inner
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            values = value if isinstance(value, list) else [value]
            for index, child in enumerate(values):
                if not isinstance(child, ast.AST) or _says_nothing(child):
                    continue
                here = whole if isinstance(whole, ast.expr | ast.arguments) else child
                condition = field == "test" or field == "ifs"
                for new in _replacements(child, condition, words):
                    replaced = new
                    if isinstance(value, list):
                        replaced = [*value[:index], new, *value[index + 1 :]]
                    place = inner if isinstance(here, ast.arguments) else here
                    yield Site(node, field, replaced, child, new, inner, place or tree)
                yield from walk(
                    child, inner, child if isinstance(child, ast.stmt) else here
                )

    yield from walk(tree, None, tree)


def _private_constant(tree: ast.Module, line: int) -> str:
    """Return the constant that a line of the module assigns, if only it reads it."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and statement.lineno == line:
            name = _text(statement.targets[0])
            return name if name.startswith("_") else ""
    return ""


def readers(source: str, name: str) -> list[tuple[int, int]]:
    """Return first and last line of each function that reads a name."""
    functions = [x for x in ast.walk(ast.parse(source)) if isinstance(x, Function)]
    return [
        _span(function)
        for function in functions
        if any(isinstance(x, ast.Name) and x.id == name for x in ast.walk(function))
    ]


def _says_nothing(node: ast.AST) -> bool:
    """Whether it is a docstring, a rendering for readers, or for type checkers."""
    if isinstance(node, ast.If) and _text(node.test) == "TYPE_CHECKING":
        return True
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.JoinedStr)):
        return True
    if isinstance(node, ast.keyword) and node.arg == "strict":  # a check of our own
        return True
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _replacements(
    node: ast.AST, condition: bool, words: dict[str, str]
) -> Iterator[ast.AST]:
    """Yield what may stand in a node's place."""
    if isinstance(node, ast.Constant):
        yield from map(ast.Constant, _constants(node.value, words))
    yield from _others(node)
    if condition and isinstance(node, ast.BoolOp):  # that each of its parts counts
        for value in node.values:
            rest = [each for each in node.values if each is not value]
            yield ast.BoolOp(node.op, rest) if len(rest) > 1 else rest[0]
    if condition and isinstance(node, (ast.Name, ast.Attribute, ast.Call)):
        yield ast.UnaryOp(ast.Not(), node)


@functools.singledispatch
def _others(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in a node's place wherever it is."""
    yield from ()


@_others.register
def _(node: ast.Compare) -> Iterator[ast.AST]:
    for index, operator in enumerate(node.ops):
        for other in COMPARISONS[type(operator)]:
            ops = [*node.ops[:index], other(), *node.ops[index + 1 :]]
            yield ast.Compare(node.left, ops, node.comparators)


@_others.register
def _(node: ast.BoolOp) -> Iterator[ast.AST]:
    yield ast.BoolOp(
        ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values
    )


@_others.register
def _(node: ast.BinOp) -> Iterator[ast.AST]:
    if type(node.op) in ARITHMETIC:
        yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)


@_others.register
def _(node: ast.UnaryOp) -> Iterator[ast.AST]:
    yield node.operand


@_others.register
def _(node: ast.Name) -> Iterator[ast.AST]:
    if node.id in SWAPPED:
        yield ast.Name(SWAPPED[node.id], node.ctx)


@_others.register
def _(node: ast.Attribute) -> Iterator[ast.AST]:
    if node.attr in SWAPPED:
        yield ast.Attribute(node.value, SWAPPED[node.attr], node.ctx)


@_others.register
def _(node: ast.Call) -> Iterator[ast.AST]:
    if _text(node.func) in CORRECTIONS and node.args:
        yield node.args[0]


def _constants(value: object, words: dict[str, str]) -> list[object]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, float):
        if value == 0:
            return [1.0]
        if 0.5 < value < 1:  # a level: its complement is the threshold
            return [1 - 2 * (1 - value), 1 - (1 - value) / 2]
        return [2 * value, value / 2]
    if isinstance(value, str) and value in words:
        return [words[value]]
    return []


def _text(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())


def _span(node: ast.AST) -> tuple[int, int]:
    if isinstance(node, ast.Module):
        return 0, sys.maxsize
    first: int = getattr(node, "lineno", 0)
    return first, getattr(node, "end_lineno", None) or first


def vocabulary() -> dict[str, str]:
    """Return for each word of verdicts and of answers another of its kind."""
    from harness.records import DiagnosticStatus, Word

    kinds = [get_args(Word), get_args(DiagnosticStatus)]
    return {
        word: kind[(index + 1) % len(kind)]
        for kind in kinds
        for index, word in enumerate(kind)
    }


# --- putting changed code in place ----------------------------------------------------


def apply(module: types.ModuleType, tree: ast.Module) -> int:
    """Put a changed module's code and constants in place of what is loaded.

    Functions keep their identity, so that whoever imported them by name has the change
    too. Returns how many things changed.
    """
    assert module.__file__ is not None
    changed = types.ModuleType(module.__name__)
    changed.__dict__.update(__file__=module.__file__, __package__=module.__package__)
    exec(compile(tree, module.__file__, "exec"), changed.__dict__)
    count = _merge(vars(module), vars(changed), module.__name__, set())
    return count + _reassign(module, tree)


def _merge(old: Any, new: Any, home: str, seen: set[int]) -> int:
    """Copy code, defaults and plain class attributes from one namespace to another."""
    count = 0
    for name, value in list(old.items()):
        other = new.get(name)
        if id(value) in seen:
            continue
        seen.add(id(value))
        own = isinstance(value, type) and value.__module__ == home
        if own and isinstance(other, type):
            count += _merge(vars(value), vars(other), home, seen)
            count += _reset(value, other)
        for mine, theirs in zip(_functions(value), _functions(other), strict=False):
            if mine.__module__ != home:
                continue
            for part in ("__code__", "__defaults__", "__kwdefaults__"):
                if getattr(mine, part) != getattr(theirs, part):
                    setattr(mine, part, getattr(theirs, part))
                    count += 1
    return count


def _functions(value: Any) -> list[types.FunctionType]:
    """Return the functions that a member is made of."""
    if isinstance(value, types.FunctionType):
        return [value]
    parts = [
        getattr(value, part, None)
        for part in ("fget", "func", "__func__", "__wrapped__")
    ]
    return [part for part in parts if isinstance(part, types.FunctionType)]


def _reset(old: type, new: type) -> int:
    count = 0
    for name, value in vars(new).items():
        plain = isinstance(value, (bool, int, float, str, tuple))
        if plain and not name.startswith("__") and vars(old).get(name) != value:
            setattr(old, name, value)
            count += 1
    return count


def _reassign(module: types.ModuleType, tree: ast.Module) -> int:
    """Run the assignments of a module again, and give importers what changed."""
    count = 0
    for statement in tree.body:
        if not isinstance(statement, (ast.Assign, ast.AnnAssign)):
            continue
        before = dict(vars(module))
        code = compile(ast.Module([statement], []), str(module.__file__), "exec")
        exec(code, vars(module))
        for name in before.keys() & vars(module).keys():
            old, new = before[name], vars(module)[name]
            if old is not new and not _equal(old, new):
                count += 1
                _rebind(name, old, new)
            elif old is not new:
                vars(module)[name] = old
    return count


def _equal(old: object, new: object) -> bool:
    try:
        return bool(repr(old) == repr(new))
    except Exception:  # noqa: BLE001 - what cannot be shown is taken as changed
        return False


def _rebind(name: str, old: object, new: object) -> None:
    for other in list(sys.modules.values()):
        names = getattr(other, "__dict__", {})
        if names.get(name) is old and getattr(other, "__name__", "") != "builtins":
            names[name] = new
            for value in list(names.values()):
                _redefault(value, old, new)


def _redefault(value: Any, old: object, new: object) -> None:
    """Replace what a function, or the fields of a dataclass, have by default."""
    own = value.__dict__.get("__init__") if isinstance(value, type) else value
    for function in _functions(own):
        given = function.__defaults__ or ()
        function.__defaults__ = tuple(new if x is old else x for x in given)


# --- running the tests ----------------------------------------------------------------


class Runner:
    """Runs tests against mutants once pytest has collected them."""

    def __init__(
        self, found: list[Mutant], jobs: int, words: dict[str, str], leave_out: bool
    ) -> None:
        self.found, self.jobs, self.words = found, jobs, words
        self.leave_out = leave_out
        self.sources = {each.module: _source(each.module) for each in found}
        self.killed: dict[int, str] = {}
        """By which test, or why, each mutant died."""
        self.kills: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
        """How many mutants of a function each test killed."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take the place of pytest's own loop."""
        self.items = session.items
        self._unchanged(session)
        self._trace_all()
        self.shared = mmap.mmap(-1, 4 * len(self.found))
        self._run_all()
        return True

    def _unchanged(self, session: pytest.Session) -> None:
        """Run all tests in this process: none may fail, or those are left out."""
        if session.testsfailed and not self.leave_out:
            raise session.Failed("there are tests that cannot be collected")
        failed = [index for index in range(len(self.items)) if not self._passes(index)]
        for index in failed:
            _say(f"fails unchanged: {self.items[index].nodeid}")
        if failed and not self.leave_out:
            raise session.Failed(f"{len(failed)} tests fail without any change")
        session.testsfailed = 0
        for index in reversed(failed):
            del self.items[index]
        _forget(self.sources)

    def _trace_all(self) -> None:
        """Run all tests in forks; keep which lines each runs, and for how long."""
        gc.collect()
        gc.freeze()  # children share the pages of what is loaded
        self.runners: dict[str, dict[int, set[int]]] = {x: {} for x in self.sources}
        self.seconds: dict[int, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            for first in range(self.jobs):
                if os.fork() == 0:
                    self._quietly()
                    (Path(folder) / str(first)).write_bytes(
                        pickle.dumps(
                            self._trace(range(first, len(self.items), self.jobs))
                        )
                    )
                    os._exit(0)
            for _ in range(self.jobs):
                os.wait()
            for file in Path(folder).iterdir():
                entered, seconds = pickle.loads(file.read_bytes())
                for index, lines in entered.items():
                    for module, line in lines:
                        self.runners[module].setdefault(line, set()).add(index)
                self.seconds |= seconds
        for index in set(range(len(self.items))) - self.seconds.keys():
            raise pytest.UsageError(f"fails when run again: {self.items[index].nodeid}")
        _say(f"{len(self.items)} tests, {sum(self.seconds.values()):.0f} s")

    def _trace(self, indices: Sequence[int]) -> Any:
        names = {importlib.import_module(name).__file__: name for name in self.sources}
        entered: dict[int, set[tuple[str, int]]] = {}
        seconds: dict[int, float] = {}

        def enter(frame: types.FrameType, event: str, arg: object) -> Any:
            name = names.get(frame.f_code.co_filename)
            if name is None:
                return None
            lines.add((name, frame.f_lineno))
            return enter

        for index, after in itertools.pairwise([*indices, None]):
            assert index is not None
            lines = entered[index] = set()
            start = time.process_time()
            sys.settrace(enter)
            passed = self._passes(index, after)
            sys.settrace(None)
            if passed:
                seconds[index] = time.process_time() - start
        return entered, seconds

    def _passes(self, index: int, after: int | None = None) -> bool:
        """Run one test; `after` is the one that follows, for what they share."""
        reports: list[pytest.TestReport] = []
        item = self.items[index]
        watch = _Watch(reports)
        if after is None:  # some other, so that fixtures of the session are kept
            after = (index + 1) % len(self.items)
        following = self.items[after] if after != index else None
        item.config.pluginmanager.register(watch)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        item.config.pluginmanager.unregister(watch)
        return not any(report.failed for report in reports)

    def _order(self, mutant: Mutant) -> list[int]:
        """Return the tests that run what is changed, likely killers first."""
        chosen = self._running(mutant, [mutant.lines]) or self._running(
            mutant,
            [mutant.around],  # of a line that the compiler has left out
        )
        if mutant.constant:
            spans = readers(self.sources[mutant.module], mutant.constant)
            chosen = self._running(mutant, spans)
        elif not mutant.function:
            chosen = list(range(len(self.items)))
        kills = self.kills[mutant.module, mutant.function]
        worth = {
            index: (1 + 9 * kills[index]) / (0.02 + self.seconds[index])
            for index in chosen
        }
        return sorted(chosen, key=lambda index: -worth[index])

    def _running(self, mutant: Mutant, spans: list[tuple[int, int]]) -> list[int]:
        lines = self.runners[mutant.module].items()
        found = (
            tests
            for line, tests in lines
            if any(low <= line <= high for low, high in spans)
        )
        return sorted(set().union(*found))

    def _run_all(self) -> None:
        running: dict[int, int] = {}
        for number, mutant in enumerate(self.found):
            if len(running) == self.jobs:
                self._wait(running)
            order = self._order(mutant)
            child = os.fork()
            if child == 0:
                code = 4
                try:
                    code = self._child(number, mutant, order)
                finally:
                    os._exit(code)
            running[child] = number
        while running:
            self._wait(running)

    def _child(self, number: int, mutant: Mutant, order: list[int]) -> int:
        """Return 0 if every test passes with the change, 1 at the first that fails."""
        _limit(30)
        self._quietly()
        try:
            tree = mutated(self.sources[mutant.module], mutant.number, self.words)
            if not apply(importlib.import_module(mutant.module), tree):
                return 3
        except Exception:  # noqa: BLE001 - a module that cannot be loaded is noticed
            return 2
        for index, after in itertools.pairwise([*order, None]):
            _limit(5 + 5 * self.seconds[index])
            if not self._passes(index, after):
                self.shared[4 * number : 4 * number + 4] = index.to_bytes(4, "little")
                return 1
        return 0

    def _quietly(self) -> None:
        plugins = self.items[0].config.pluginmanager
        plugins.unregister(name="terminalreporter")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)

    def _wait(self, running: dict[int, int]) -> None:
        child, status = os.wait()
        number = running.pop(child)
        each = self.found[number]
        if number % 100 == 0:
            _say(f"{number} of {len(self.found)} mutants")
        code = os.waitstatus_to_exitcode(status)
        if code == 1:
            index = int.from_bytes(self.shared[4 * number : 4 * number + 4], "little")
            self.kills[each.module, each.function][index] += 1
            self.killed[number] = self.items[index].nodeid
        elif code == 2:
            self.killed[number] = "it cannot be loaded"
        elif code < 0:
            self.killed[number] = "time ran out"
        elif code == 3:
            _say(f"not applied: {each.key}")
        elif code:
            raise RuntimeError(f"a child ended with {code}: {each.key}")
        else:
            _say(f"survived, line {each.line}: {each.key}")


def _say(text: str) -> None:
    print(text, file=sys.__stderr__, flush=True)


def _limit(seconds: float) -> None:
    """End this process after so much of its own time, or, if it hangs, much later."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(int(60 + 10 * seconds))


_CACHED = type(functools.lru_cache(len))


def _forget(changed: Iterable[str]) -> None:
    """Clear the caches of changed modules and of tests, which hold what was right."""
    for name, module in list(sys.modules.items()):
        if name in changed or name.startswith("tests."):
            for value in vars(module).values():
                if isinstance(value, _CACHED):
                    value.cache_clear()


class _Watch:
    def __init__(self, reports: list[pytest.TestReport]) -> None:
        self.reports = reports

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)


def _source(module: str) -> str:
    file = importlib.import_module(module).__file__
    assert file is not None
    return Path(file).read_text()


# --- the command --------------------------------------------------------------------


def modules(names: Sequence[str]) -> list[str]:
    """Return modules, in place of a package all that are in it."""
    found = []
    for name in names:
        module = importlib.import_module(name)
        if hasattr(module, "__path__"):
            inner = pkgutil.walk_packages(module.__path__, f"{name}.")
            found += [each.name for each in inner if not each.ispkg]
        else:
            found.append(name)
    return found


def equivalent() -> dict[str, str]:
    """Return the changes that change nothing, by key, each with its reason."""
    lines = EQUIVALENT.read_text().splitlines()
    entries = [line for line in lines if line.strip() and not line.startswith("#")]
    return dict(line.rsplit("  # ", 1) for line in entries)


@click.command(help=__doc__)
@click.option("--jobs", default=2, show_default=True, help="Mutants at a time.")
@click.option("--only", multiple=True, help="A module or package; else all of them.")
@click.option("--tests", multiple=True, default=TESTS, help="Where the tests are.")
@click.option(
    "--leave-out-failing",
    is_flag=True,
    help="Go on without tests that fail unchanged; else they end it.",
)
def main(
    jobs: int, only: Sequence[str], tests: Sequence[str], leave_out_failing: bool
) -> None:
    """Print the mutants that survive."""
    # Of forks beside threads: the threads of libraries, which hold no lock here.
    warnings.simplefilter("ignore", DeprecationWarning)
    start = time.monotonic()
    words = vocabulary()
    names = modules(only or MODULES)
    found = [each for name in names for each in mutants(name, _source(name), words)]
    known = equivalent()
    asked = [each for each in found if each.key not in known]
    runner = Runner(asked, jobs, words, leave_out_failing)
    arguments = ["-q", "-m", "not slow", "-p", "no:cacheprovider"]
    arguments += ["--no-header", "-o", "tmp_path_retention_policy=failed"]
    code = pytest.main([*arguments, *tests], plugins=[runner])
    if not hasattr(runner, "shared") or code not in (0, 5):
        sys.exit(f"pytest ended with {int(code)}")
    survived = [each for i, each in enumerate(asked) if i not in runner.killed]
    click.echo(
        f"\n{len(found)} mutants, {len(found) - len(asked)} equivalent, "
        f"{len(survived)} survived; {time.monotonic() - start:.0f} s"
    )
    for each in survived:
        click.echo(f"survived, line {each.line}: {each.key}")
    stale = known.keys() - {each.key for each in found}
    stale = {key for key in stale if key.split(":")[0] in names}
    for key in sorted(stale):
        click.echo(f"{EQUIVALENT.name} lists what is no mutant: {key}")
    sys.exit(bool(survived or stale))


if __name__ == "__main__":
    main()
