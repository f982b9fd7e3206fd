"""What a plugin's class has to be: checked on loading, before anything trains."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from numbers import Real
from typing import Any, get_args, get_type_hints

import pydantic

from harness.api.attacks import Attack, Budget
from harness.api.plugin import Options, Plugin
from harness.base import PluginError


def check_plugin(plugin: Any, base: type[Plugin[Any]], where: str) -> None:
    """Raise PluginError unless `plugin` is a usable class of its kind.

    `base` is the class that plugins of the kind derive from; `where` names the plugin
    and the hook that offers the class, for the message.
    """
    if not (inspect.isclass(plugin) and issubclass(plugin, base)):
        raise PluginError(f"{where}: {plugin!r} is no subclass of {base.__name__}")
    if inspect.isabstract(plugin):
        missing = ", ".join(sorted(plugin.__abstractmethods__))
        raise PluginError(f"{where}: {plugin.__name__} does not define {missing}")
    if not isinstance(getattr(plugin, "name", None), str):
        raise PluginError(f"{where}: {plugin.__name__} has no `name`")
    if not (inspect.isclass(plugin.Options) and issubclass(plugin.Options, Options)):
        raise PluginError(
            f"{where}: {plugin.__name__}.Options is no subclass of harness.api.Options"
        )
    for fault in _faults(plugin, base):
        raise PluginError(f"{where}: {plugin.__name__}.{fault}")


def stated_budget(attack: Attack[Any], examples: int) -> Budget:
    """Return `Attack.budget`; raise PluginError where that is no budget."""
    budget = attack.budget(examples)
    if not isinstance(budget, Budget):
        raise PluginError(
            f"the attack {attack.name!r} returned {budget!r} from `budget`; expected a "
            "harness.api.Budget"
        )
    for name, value in vars(budget).items():
        unlimited = name == "flips" and value is None
        if not unlimited and not (isinstance(value, Real) and float(value) >= 0):
            raise PluginError(
                f"the attack {attack.name!r} returned {value!r} as `{name}` of its "
                "budget; expected a number from 0 on"
            )
    return budget


def _faults(plugin: type[Plugin[Any]], base: type[Plugin[Any]]) -> Iterator[str]:
    for name, wanted in _members(base).items():
        found = getattr(plugin, name)
        if found is wanted:
            continue
        if inspect.isfunction(wanted):
            yield from _wrong_signature(plugin, name, wanted)
        elif isinstance(wanted, property) and inspect.isroutine(found):
            yield f"{name} is a method; it has to be a property or a value"
    yield from _wrong_attributes(plugin, base)
    yield from _wrong_defaults(plugin.Options)


@lru_cache
def _members(base: type[Plugin[Any]]) -> dict[str, Any]:
    """Return the methods and properties that plugins of a kind may override."""
    return {
        name: member
        for name, member in inspect.getmembers(base)
        if name == "__init__" or not name.startswith("_")
    }


def _wrong_signature(
    plugin: type[Plugin[Any]], name: str, wanted: Callable[..., Any]
) -> Iterator[str]:
    """Compare a method with the one it overrides, whose arguments come by position."""
    method, own = getattr(plugin, name), inspect.getattr_static(plugin, name)
    if not callable(method):
        yield f"{name} is {method!r} and no method"
        return
    # What is no descriptor, as a `functools.partial`, is called without an instance.
    bound = isinstance(own, classmethod | staticmethod) or not hasattr(own, "__get__")
    arguments = list(inspect.signature(wanted).parameters)[bound:]
    found = inspect.signature(method, follow_wrapped=False)
    try:
        found.bind(*arguments)
        if any(p.kind is p.VAR_POSITIONAL for p in found.parameters.values()):
            # What it hands on may be too much; what is missing, it may add.
            found = inspect.signature(method)
            found.bind_partial(*arguments)
    except TypeError:
        takes = f"{name}({', '.join(arguments)})"
        yield f"{name}{_bare(found)} has to take what {takes} takes"


def _bare(signature: inspect.Signature) -> str:
    """Spell a signature without its annotations."""
    parameters = signature.parameters.values()
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    return str(inspect.Signature(bare))


def _wrong_attributes(
    plugin: type[Plugin[Any]], base: type[Plugin[Any]]
) -> Iterator[str]:
    """Hold the values of class attributes against the types that `base` states."""
    for name, adapter in _attribute_types(base).items():
        value = getattr(plugin, name)
        if isinstance(value, property | cached_property):  # it depends on the options
            continue
        try:
            adapter.validate_python(value, strict=True)
        except pydantic.ValidationError as error:
            yield f"{name} is {value!r}: {error.errors()[0]['msg']}"


@lru_cache
def _attribute_types(base: type[Plugin[Any]]) -> dict[str, pydantic.TypeAdapter[Any]]:
    shared = get_type_hints(Plugin)  # whose values are checked above
    return {
        name: pydantic.TypeAdapter(get_args(hint)[0])
        for name, hint in get_type_hints(base).items()
        if name not in shared
    }


def _wrong_defaults(options: type[Options]) -> Iterator[str]:
    """Validate the defaults of options, which pydantic itself takes as they are."""
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in options.model_fields.items()
        if not field.is_required()
        and field.validation_alias is None  # or it would be given by another name
        and not getattr(field, "default_factory_takes_validated_data", False)
    }
    try:
        options.model_validate(defaults, strict=True)
    except pydantic.ValidationError as error:
        # Options that are required are missing here, and no fault; nor is it one that
        # all defaults together say too little.
        for fault in error.errors():
            if fault["loc"] and fault["loc"][0] in defaults:
                name = ".".join(map(str, fault["loc"]))
                default = f"a wrong default, {fault['input']!r}"
                yield f"Options.{name} has {default}: {fault['msg']}"
    except Exception:  # noqa: BLE001 - a validator of theirs that needs what is missing
        return
