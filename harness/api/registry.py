"""The plugins: where they come from, what they are called, how they are built.

Three doors lead in, and all end at the same pluggy manager: the modules of the package
`harness_plugins` (what the project ships; a new file there is found by itself), the
entry points of the group ``harness``, and files or folders named by the user. A plugin
that cannot be loaded is left out with a warning that holds its traceback; what would
make a result ambiguous (two plugins of one name) or silently wrong (a misspelt hook, a
method of another signature) is a `PluginError`. Names are sorted, so that nothing
depends on the order of discovery.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from harness import __version__
from harness.api import hookspecs
from harness.api.attacks import Attack
from harness.api.checking import check_plugin
from harness.api.constraints import Constraint
from harness.api.forgiving import BY_PATH, FAILURES, GROUP, forgive, warn
from harness.api.metrics import Metric
from harness.api.models import ModelAdapter
from harness.api.plugin import Plugin
from harness.base import PluginError, UsageError, unknown_name

# --- results of loading -------------------------------------------------------------


@dataclass(frozen=True)
class PluginInfo:
    """Where a plugin comes from."""

    kind: str
    name: str
    plugin: type[Plugin[Any]]
    source: str
    """The file, or ``module:class``, that defines it."""
    version: str
    sha256: str = field(default="", compare=False)
    """Of its source, all files of a package; stands in records beside the version."""


LIMIT_VARIABLE = "HARNESS_PLUGINS"
KINDS: dict[str, type[Plugin[Any]]] = {
    "model": ModelAdapter,
    "constraint": Constraint,
    "attack": Attack,
    "metric": Metric,
}
"""The kinds of plugin, and what a plugin of each must be."""


class Registry:
    """The plugins of one command; `load_registry` makes it."""

    def __init__(
        self, hook: pluggy.HookRelay, infos: Mapping[tuple[str, str], PluginInfo]
    ) -> None:
        self.hook = hook
        """The hooks of all plugins: ``hook.cell_started(cell_id=...)`` and so on. Those
        that raise are warned of."""
        self._infos = dict(sorted(infos.items()))

    def all(self, kind: str | None = None, **declared: Any) -> list[PluginInfo]:
        """Return the plugins, or those of one kind, sorted by kind and name.

        `declared` limits them to classes with such attributes, as ``shows="search"``.
        """
        return [
            info
            for info in self._infos.values()
            if kind in (None, info.kind)
            and all(getattr(info.plugin, k, None) == v for k, v in declared.items())
        ]

    def only(self, kind: str, **declared: Any) -> PluginInfo:
        """Return the one plugin of a kind whose class has such attributes.

        Raises PluginError where there is none, or a choice.
        """
        found = self.all(kind, **declared)
        if len(found) != 1:
            what = " and ".join(f"{key} = {value!r}" for key, value in declared.items())
            names = ", ".join(info.name for info in found) or "none"
            raise PluginError(f"one {kind} has to declare {what}; it is: {names}")
        return found[0]

    def get(self, kind: str, name: str) -> PluginInfo:
        """Return one plugin.

        Raises UsageError, with the nearest match, if there is none of that name.
        """
        if (kind, name) not in self._infos:
            known = [info.name for info in self.all(kind)]
            raise UsageError(unknown_name(kind, name, known))
        return self._infos[kind, name]

    def create(self, kind: str, name: str, options: Mapping[str, Any]) -> Plugin[Any]:
        """Build a plugin; pydantic's ValidationError of its options passes through."""
        plugin = self.get(kind, name).plugin
        return plugin(plugin.Options.model_validate(dict(options)))


def load_registry(paths: Sequence[Path] = ()) -> Registry:
    """Find all plugins; `paths` are plugin files, or folders of them.

    The environment variable ``HARNESS_PLUGINS``, if set, is a comma-separated list of
    the entry points to load, empty for none. It limits neither what the project ships
    nor `paths`.

    Raises PluginError on a misspelt hook, a class that does not fit its kind, a clash
    of names, or a path that is not there. Warns of, and leaves out, a plugin that
    cannot be loaded.
    """
    manager = pluggy.PluginManager("harness")
    manager.add_hookspecs(hookspecs)
    for name in _shipped():
        with _left_out(name):
            manager.register(importlib.import_module(name), name)
    for name in _entry_points():
        # One call for all of them would end at the first that is broken.
        with _left_out(name):
            manager.load_setuptools_entrypoints(GROUP, name)
    known = {getattr(plugin, "__file__", None) for plugin in manager.get_plugins()}
    for file in _files(paths):
        if str(file) not in known:  # one file by two doors is one plugin
            with _left_out(str(file)):
                manager.register(_import_file(file), str(file))
    _check_hooks(manager)
    return Registry(manager.hook, _collect(manager))


# --- discovery ----------------------------------------------------------------------


@contextmanager
def _left_out(name: str) -> Iterator[None]:
    """Warn of a plugin that cannot be loaded; raise PluginError if a hook is wrong."""
    try:
        yield
    except pluggy.PluginValidationError as error:
        raise PluginError(str(error)) from error
    except FAILURES:
        warn(name, "cannot be loaded and is left out")


def _shipped() -> Iterator[str]:
    for kind in KINDS:
        package = f"harness_plugins.{kind}s"
        try:
            folder = importlib.import_module(package).__path__
        except ModuleNotFoundError as error:
            raise PluginError(
                f"the package {error.name} is not installed; "
                "run `pip install -e .` in the project's folder"
            ) from error
        for module in sorted(info.name for info in pkgutil.iter_modules(folder)):
            if not module.startswith("_"):
                yield f"{package}.{module}"


def _entry_points() -> list[str]:
    known = {point.name for point in metadata.entry_points(group=GROUP)}
    limit = os.environ.get(LIMIT_VARIABLE)
    if limit is None:
        return sorted(known)
    wanted = {name.strip() for name in limit.split(",") if name.strip()}
    for name in sorted(wanted - known):
        raise PluginError(f"{LIMIT_VARIABLE}: {unknown_name('plugin', name, known)}")
    return sorted(wanted)


def _files(paths: Iterable[Path]) -> list[Path]:
    """Return the plugin files that are meant, without tests and private modules."""
    found: set[Path] = set()
    for path in {path.resolve() for path in paths}:
        if path.is_dir():
            beside = ("_", "test_", "conftest.")
            found |= {x for x in path.glob("*.py") if not x.name.startswith(beside)}
        elif path.suffix == ".py" and path.is_file():
            found.add(path)
        else:
            raise PluginError(f"{path} is neither a Python file nor a folder of them")
    return sorted(found)


def _import_file(file: Path) -> ModuleType:
    name = f"{BY_PATH}{file.stem}_{_sha256(str(file).encode())[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # it ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # annotations are looked up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


# --- what they offer ----------------------------------------------------------------


def _check_hooks(manager: pluggy.PluginManager) -> None:
    """Refuse hooks that nobody calls; pluggy itself registers them silently."""
    known = [name for name in vars(hookspecs) if name in vars(manager.hook)]
    for name, plugin in manager.list_name_plugin():
        callers = manager.get_hookcallers(plugin) or []
        if not callers:
            warn(name, "implements no hook and is left out")
        for caller in callers:
            wanted = [x for x in caller.get_hookimpls() if not x.optionalhook]
            if wanted and not caller.has_spec():
                problem = unknown_name("hook", caller.name, known)
                raise PluginError(f"plugin {name}: {problem}")


def _collect(manager: pluggy.PluginManager) -> dict[tuple[str, str], PluginInfo]:
    found: dict[tuple[str, str], PluginInfo] = {}
    for info in _offered(manager):
        other = found.setdefault((info.kind, info.name), info)
        if other is not info:
            first, second = sorted((other.source, info.source))
            raise PluginError(
                f"two plugins offer the {info.kind} {info.name!r}: "
                f"{first} and {second}; rename one of them or leave it out"
            )
    return found


def _offered(manager: pluggy.PluginManager) -> Iterator[PluginInfo]:
    """Call the hooks that offer classes; check each class."""
    origin = _forgive(manager)
    for kind, base in KINDS.items():
        hook = f"register_{kind}s"
        try:
            classes = list(chain.from_iterable(getattr(manager.hook, hook)()))
        except TypeError as error:  # implementations return lists, see `_forgive`
            raise PluginError(f"a wrapper of {hook} returns no lists") from error
        for plugin in classes:
            name = origin.get(id(plugin), "unknown (a wrapper added it)")
            check_plugin(plugin, base, f"plugin {name}, {hook}")
            yield _info(plugin, kind, _version(manager, name))


def _forgive(manager: pluggy.PluginManager) -> Mapping[int, str]:
    """Let hooks warn where they fail; return who offers which class, by its id."""
    origin: dict[int, str] = {}

    def keep(name: str, classes: Iterable[Any]) -> list[Any]:
        found = list(classes)
        origin.update((id(plugin), name) for plugin in found)
        return found

    for hook, caller in vars(manager.hook).items():
        for impl in caller.get_hookimpls():
            offers = hook.startswith("register_")
            forgive(impl, hook, partial(keep, impl.plugin_name) if offers else None)
    return origin


def _version(manager: pluggy.PluginManager, name: str) -> str:
    if name.startswith("harness_plugins."):
        return __version__
    plugin = manager.get_plugin(name)
    known = [dist for one, dist in manager.list_plugin_distinfo() if one is plugin]
    return str(known[0].version) if known else "unversioned"


def _info(plugin: type[Plugin[Any]], kind: str, version: str) -> PluginInfo:
    try:
        file = Path(inspect.getfile(plugin))
        whole = [file]
        if file.name == "__init__.py":  # a package: the plugin is all of its modules
            whole = sorted(file.parent.rglob("*.py"))
        source, digest = str(file), _sha256(b"".join(x.read_bytes() for x in whole))
    except (OSError, TypeError):  # made in memory, or in a zip
        source, digest = f"{plugin.__module__}:{plugin.__qualname__}", ""
    return PluginInfo(kind, plugin.name, plugin, source, version, digest)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
