"""The plugins: where they come from, what they are called, how they are built.

Three doors lead in, and all end at the same pluggy manager: the modules of the package
`harness_plugins` (what the project ships; a new file there is found by itself), the
entry points of the group ``harness``, and files or folders named by the user. A plugin
that cannot be loaded is left out with a warning that holds its traceback; what would
make a result ambiguous (two plugins of one name) or silently wrong (a misspelt hook) is
a `PluginError`. Names are sorted, so that nothing depends on the order of discovery.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import pkgutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from harness import __version__
from harness.api import hookspecs
from harness.api.attacks import Attack
from harness.api.constraints import Constraint
from harness.api.metrics import Metric
from harness.api.models import ModelAdapter
from harness.api.plugin import Options, Plugin
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


ENTRY_POINT_GROUP = "harness"
LIMIT_VARIABLE = "HARNESS_PLUGINS"
KINDS: dict[str, type[Plugin[Any]]] = {
    "model": ModelAdapter,
    "constraint": Constraint,
    "attack": Attack,
    "metric": Metric,
}
"""The kinds of plugin, and what a plugin of each must be."""


class PluginWarning(UserWarning):
    """A plugin failed, and the rest went on without it."""


class Lifecycle:
    """Calls a lifecycle hook of all plugins: ``lifecycle.cell_started(cell_id=...)``.

    Trackers are not on the way to a record: one that raises is warned of, and neither
    the run nor the other plugins notice.
    """

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._manager = manager

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(**arguments: Any) -> None:
            for plugin_name, plugin in sorted(self._manager.list_name_plugin()):
                others = self._manager.get_plugins() - {plugin}
                try:
                    self._manager.subset_hook_caller(name, others)(**arguments)
                except Exception:  # noqa: BLE001 - see above
                    _warn(plugin_name, f"failed in {name}:\n{_reason()}")

        return call


class Registry:
    """The plugins of one command; `load_registry` makes it."""

    def __init__(
        self, hook: Lifecycle, infos: Mapping[tuple[str, str], PluginInfo]
    ) -> None:
        self.hook = hook
        """The lifecycle hooks of all plugins."""
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

    def only(self, kind: str, **declared: str) -> PluginInfo:
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

    Raises PluginError on a misspelt hook, a clash of names, or a path that is not
    there. Warns of, and leaves out, a plugin that cannot be loaded.
    """
    manager = pluggy.PluginManager("harness")
    manager.add_hookspecs(hookspecs)
    versions: dict[str, str] = {}
    seen: set[str] = set()
    for found in (*_shipped(), *_entry_points(), *_named(paths)):
        plugin = _load(found)
        origin = getattr(plugin, "__file__", None) or found.name
        if plugin is not None and origin not in seen:  # one file by two doors is one
            _register(manager, plugin, found.name)
            versions[found.name] = found.version
            seen.add(origin)
    _check_hooks(manager)
    return Registry(Lifecycle(manager), _collect(manager, versions))


# --- discovery ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    name: str
    version: str
    load: Callable[[], Any]


def _shipped() -> Iterator[_Found]:
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
                name = f"{package}.{module}"
                yield _Found(name, __version__, _importer(name))


def _importer(name: str) -> Callable[[], ModuleType]:
    return lambda: importlib.import_module(name)


def _entry_points() -> Iterator[_Found]:
    points = {p.name: p for p in metadata.entry_points(group=ENTRY_POINT_GROUP)}
    for name in sorted(_chosen(points)):
        point = points[name]
        version = point.dist.version if point.dist else "unknown"
        yield _Found(name, version, point.load)


def _chosen(known: Iterable[str]) -> Iterable[str]:
    limit = os.environ.get(LIMIT_VARIABLE)
    if limit is None:
        return known
    wanted = {name.strip() for name in limit.split(",") if name.strip()}
    for name in sorted(wanted.difference(known)):
        raise PluginError(f"{LIMIT_VARIABLE}: {unknown_name('plugin', name, known)}")
    return wanted


def _named(paths: Iterable[Path]) -> Iterator[_Found]:
    for path in sorted({path.resolve() for path in paths}):
        for file in _files(path):
            yield _Found(str(file), "unversioned", _file_importer(file))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.glob("*.py") if _is_plugin_file(file))
    if path.suffix == ".py" and path.is_file():
        return [path]
    raise PluginError(f"{path} is neither a Python file nor a folder of them")


def _is_plugin_file(file: Path) -> bool:
    """Leave out what stands beside plugins in a folder: tests and private modules."""
    return not file.name.startswith(("_", "test_", "conftest."))


def _file_importer(file: Path) -> Callable[[], ModuleType]:
    return lambda: _import_file(file)


def _import_file(file: Path) -> ModuleType:
    name = f"harness_plugin_{file.stem}_{_sha256(str(file).encode())[:8]}"
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


# --- loading and checking -----------------------------------------------------------


def _load(found: _Found) -> Any:
    """Return the plugin, or None and a warning where it cannot be imported."""
    try:
        return found.load()
    except (Exception, SystemExit):  # noqa: BLE001 - whatever it does, the rest load
        _warn(found.name, f"cannot be loaded and is left out:\n{_reason()}")
        return None


def _warn(name: str, problem: str) -> None:
    warnings.warn(PluginWarning(f"plugin {name} {problem}"), stacklevel=3)


def _reason() -> str:
    return traceback.format_exc().rstrip()


def _register(manager: pluggy.PluginManager, plugin: Any, name: str) -> None:
    try:
        manager.register(plugin, name)
    except pluggy.PluginValidationError as error:
        raise PluginError(str(error)) from error


def _check_hooks(manager: pluggy.PluginManager) -> None:
    """Refuse hooks that nobody calls; pluggy itself registers them silently."""
    known = [name for name in vars(hookspecs) if hasattr(manager.hook, name)]
    for name, plugin in manager.list_name_plugin():
        callers = manager.get_hookcallers(plugin)
        if not callers:
            _warn(name, "implements no hook and is left out")
        for caller in callers or ():
            if not caller.has_spec():
                problem = unknown_name("hook", caller.name, known)
                raise PluginError(f"plugin {name}: {problem}")


def _collect(
    manager: pluggy.PluginManager, versions: Mapping[str, str]
) -> dict[tuple[str, str], PluginInfo]:
    found: dict[tuple[str, str], PluginInfo] = {}
    for info in _offered(manager, versions):
        other = found.setdefault((info.kind, info.name), info)
        if other is not info:
            first, second = sorted((other.source, info.source))
            raise PluginError(
                f"two plugins offer the {info.kind} {info.name!r}: "
                f"{first} and {second}; rename one of them or leave it out"
            )
    return found


def _offered(
    manager: pluggy.PluginManager, versions: Mapping[str, str]
) -> Iterator[PluginInfo]:
    for kind in KINDS:
        caller = getattr(manager.hook, f"register_{kind}s")
        for impl in caller.get_hookimpls():
            try:
                classes = list(impl.function())
            except Exception:  # noqa: BLE001 - as in `_load`
                name = impl.plugin_name
                _warn(name, f"failed in {caller.name} and is left out:\n{_reason()}")
                continue
            for plugin in classes:
                _check_class(plugin, kind, f"plugin {impl.plugin_name}, {caller.name}")
                yield _info(plugin, kind, versions[impl.plugin_name])


def _check_class(plugin: Any, kind: str, where: str) -> None:
    base = KINDS[kind]
    if not (inspect.isclass(plugin) and issubclass(plugin, base)):
        raise PluginError(f"{where}: {plugin!r} is no subclass of {base.__name__}")
    if inspect.isabstract(plugin):
        missing = ", ".join(sorted(plugin.__abstractmethods__))
        raise PluginError(f"{where}: {plugin.__name__} does not define {missing}")
    if not isinstance(getattr(plugin, "name", None), str):
        raise PluginError(f"{where}: {plugin.__name__} has no `name`")
    if not (inspect.isclass(plugin.Options) and issubclass(plugin.Options, Options)):
        raise PluginError(
            f"{where}: {plugin.__name__}.Options is no subclass of "
            "harness.api.plugin.Options"
        )


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
