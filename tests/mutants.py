"""Change the rule and the statistics bit by bit, and see that the tests notice.

    python -m tests.mutants --jobs 2
    python -m tests.mutants --jobs 16 --only harness.records.crossed

Every comparison, connective, arithmetic operator, number, condition, extreme,
quantifier, correction and word in the syntax trees of `MODULES` is changed in turn.
Tests are collected once. Each mutant is a forked process that gets the changed code in
place of the old, and runs the tests that enter the changed function, quick and
successful killers first, up to the first failure. Prints the mutants that no test
notices, and exits with 1 if there are any beside those in `equivalent_mutants.txt`.
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
from collections.abc import Iterator, Sequence
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
        lines = _span(function or tree)
        line = getattr(site.node, "lineno", 0)
        constant = _private_constant(tree, line) if function is None else ""
        found.append(Mutant(module, name, lines, line, change, nth, number, constant))
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


def _sites(tree: ast.Module, words: dict[str, str]) -> Iterator[Site]:
    """Walk all expressions that run, in a fixed order."""

    def walk(node: ast.AST, function: Function | None) -> Iterator[Site]:
        inner = node if isinstance(node, Function) else function
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            values = value if isinstance(value, list) else [value]
            for index, child in enumerate(values):
                if not isinstance(child, ast.AST) or _says_nothing(child):
                    continue
                condition = field == "test" or field == "ifs"
                for new in _replacements(child, condition, words):
                    replaced = new
                    if isinstance(value, list):
                        replaced = [*value[:index], new, *value[index + 1 :]]
                    yield Site(node, field, replaced, child, new, inner)
                yield from walk(child, inner)

    yield from walk(tree, None)


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
    if not isinstance(node, Function):
        return 0, sys.maxsize
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    return first, node.end_lineno or first


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


# --- running the tests ----------------------------------------------------------------


class Runner:
    """Runs tests against mutants once pytest has collected them."""

    def __init__(self, found: list[Mutant], jobs: int, words: dict[str, str]) -> None:
        self.found, self.jobs, self.words = found, jobs, words
        self.sources = {each.module: _source(each.module) for each in found}
        self.killed: dict[int, str] = {}
        """By which test, or why, each mutant died."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take the place of pytest's own loop."""
        self.items = session.items
        before = self._unchanged()
        if before is None:
            raise pytest.UsageError("the tests fail without any change")
        self.entered, self.seconds = before
        self.kills = [0] * len(self.items)
        self.shared = mmap.mmap(-1, 4 * len(self.found))
        self._run_all()
        return True

    def _unchanged(self) -> Any:
        """Run all tests once in a fork; say what each enters, and for how long."""
        with tempfile.NamedTemporaryFile() as file:
            child = os.fork()
            if child == 0:
                self._quietly()
                seen = self._trace()
                Path(file.name).write_bytes(pickle.dumps(seen))
                os._exit(seen is None)
            _, status = os.waitpid(child, 0)
            return pickle.loads(Path(file.name).read_bytes()) if status == 0 else None

    def _trace(self) -> Any:
        names = {importlib.import_module(name).__file__: name for name in self.sources}
        entered: list[set[tuple[str, int]]] = []
        seconds = []

        def enter(frame: types.FrameType, event: str, arg: object) -> None:
            code = frame.f_code
            if code.co_filename in names:
                entered[-1].add((names[code.co_filename], code.co_firstlineno))

        for index in range(len(self.items)):
            entered.append(set())
            start = time.perf_counter()
            sys.settrace(enter)
            passed = self._passes(index, index + 1)
            sys.settrace(None)
            seconds.append(time.perf_counter() - start)
            if not passed:
                print(
                    f"fails unchanged: {self.items[index].nodeid}", file=sys.__stderr__
                )
                return None
        return entered, seconds

    def _passes(self, index: int, after: int) -> bool:
        """Run one test; `after` is the one that follows, for what they share."""
        reports: list[pytest.TestReport] = []
        item = self.items[index]
        watch = _Watch(reports)
        item.config.pluginmanager.register(watch)
        following = self.items[after] if after < len(self.items) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        item.config.pluginmanager.unregister(watch)
        return not any(report.failed for report in reports)

    def _order(self, mutant: Mutant) -> list[int]:
        """Return the tests that enter the changed function, likely killers first."""
        spans = [mutant.lines]
        if mutant.constant:
            spans = readers(self.sources[mutant.module], mutant.constant)
        anywhere = not (mutant.function or mutant.constant)
        chosen = [
            index
            for index, entered in enumerate(self.entered)
            if anywhere
            or any(
                module == mutant.module and low <= line <= high
                for module, line in entered
                for low, high in spans
            )
        ]
        worth = {
            index: (1 + self.kills[index]) / (0.02 + self.seconds[index])
            for index in chosen
        }
        return sorted(chosen, key=lambda index: -worth[index])

    def _run_all(self) -> None:
        gc.collect()
        gc.freeze()  # children share the pages of what is loaded
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
        signal.alarm(60)
        self._quietly()
        try:
            tree = mutated(self.sources[mutant.module], mutant.number, self.words)
            if not apply(importlib.import_module(mutant.module), tree):
                return 3
        except Exception:  # noqa: BLE001 - a module that cannot be loaded is noticed
            return 2
        for index, after in itertools.pairwise([*order, len(self.items)]):
            signal.alarm(int(20 + 5 * self.seconds[index]))
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
        if number % 100 == 0:
            total = len(self.found)
            print(f"{number} of {total} mutants", file=sys.stderr, flush=True)
        code = os.waitstatus_to_exitcode(status)
        if code == 1:
            index = int.from_bytes(self.shared[4 * number : 4 * number + 4], "little")
            self.kills[index] += 1
            self.killed[number] = self.items[index].nodeid
        elif code == 2:
            self.killed[number] = "it cannot be loaded"
        elif code < 0:
            self.killed[number] = "time ran out"
        elif code == 3:
            print(f"not applied: {self.found[number].key}", file=sys.stderr)
        elif code:
            raise RuntimeError(f"a child ended with {code}: {self.found[number].key}")
        else:
            each = self.found[number]
            print(
                f"survived, line {each.line}: {each.key}", file=sys.stderr, flush=True
            )


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
def main(jobs: int, only: Sequence[str], tests: Sequence[str]) -> None:
    """Print the mutants that survive."""
    # Of forks beside threads: the threads of libraries, which hold no lock here.
    warnings.simplefilter("ignore", DeprecationWarning)
    words = vocabulary()
    names = modules(only or MODULES)
    found = [each for name in names for each in mutants(name, _source(name), words)]
    known = equivalent()
    asked = [each for each in found if each.key not in known]
    runner = Runner(asked, jobs, words)
    arguments = ["-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
    code = pytest.main([*arguments, "--no-header", *tests], plugins=[runner])
    if not hasattr(runner, "items") or not runner.items or code not in (0, 5):
        sys.exit(f"pytest ended with {code}")
    survived = [each for i, each in enumerate(asked) if i not in runner.killed]
    click.echo(f"\n{len(found)} mutants, {len(found) - len(asked)} equivalent")
    for each in survived:
        click.echo(f"survived, line {each.line}: {each.key}")
    stale = known.keys() - {each.key for each in found}
    stale = {key for key in stale if key.split(":")[0] in names}
    for key in sorted(stale):
        click.echo(f"{EQUIVALENT.name} lists what is no mutant: {key}")
    sys.exit(bool(survived or stale))


if __name__ == "__main__":
    main()
