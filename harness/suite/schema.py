"""The JSON Schema of suites, with the options of the plugins that are installed.

Editors complete from it. It is more lenient than the loader, because a file or a
profile may hold a part of a suite: keys that are required there may be missing here,
and null removes an entry.
"""

from __future__ import annotations

import inspect
from typing import Any

from harness.api import PluginInfo, Registry
from harness.suite.model import PLUGIN_SECTIONS, PluginSection, Suite
from harness.suite.names import LABEL

Schema = dict[str, Any]
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MAPPING_OR_NULL = ["object", "null"]
_NOT_IN_PROFILES = ("extends", "profiles")


def suite_schema(registry: Registry) -> Schema:
    """Return the schema of suite files (draft 2020-12)."""
    suite = Suite.model_json_schema(ref_template="#/$defs/{model}")
    definitions = {k: _partial(d) for k, d in suite["$defs"].items()}
    sections = dict(suite["properties"])
    for section, about in PLUGIN_SECTIONS.items():
        base = definitions.pop(about.__name__)
        definitions |= _definitions(base, about, registry)
        sections[section] = _plugin_section(sections[section], about, registry)
    sections["corpora"] = _labelled(sections["corpora"], _ref("CorpusSection"))
    groups = _labelled(sections["claims"], _ref("ClaimSection"))
    sections["claims"] = _labelled(sections["claims"], groups)
    sections["profiles"] = _labelled(sections["profiles"], _ref("Profile"))
    definitions["Profile"] = {
        "type": _MAPPING_OR_NULL,
        "properties": {
            key: {"$ref": f"#/properties/{key}"}
            for key in sections
            if key not in _NOT_IN_PROFILES
        },
        "additionalProperties": False,
    }
    return {
        "$schema": _DIALECT,
        "title": "harness suite",
        "description": suite["description"],
        "type": "object",
        "properties": sections,
        "additionalProperties": False,
        "if": {"not": {"required": ["extends"]}},
        "then": {"required": [key for key in suite["required"] if key != "name"]},
        "$defs": definitions,
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _partial(definition: Schema) -> Schema:
    """Let a section miss keys that another layer may hold, and be null."""
    kept = {key: value for key, value in definition.items() if key != "required"}
    return {**kept, "type": _MAPPING_OR_NULL}


def _labelled(section: Schema, entry: Schema, known: Schema | None = None) -> Schema:
    """Describe a section of labels; `known` are entries for particular labels."""
    return {
        "description": section["description"],
        "type": _MAPPING_OR_NULL,
        "propertyNames": {"pattern": LABEL},
        "properties": known or {},
        "additionalProperties": entry,
    }


def _plugin_section(
    section: Schema, about: type[PluginSection], registry: Registry
) -> Schema:
    """Describe a section of plugins; a label can name the plugin of its entry."""
    names = [info.name for info in registry.all(about.kind)]
    known = {
        name: {
            "allOf": [_ref(_entry_name(about))],
            "if": {"not": {"required": [about.key]}},
            "then": _ref(f"{about.kind}.{name}"),
        }
        for name in names
        if about.default(name) == name
    }
    return _labelled(section, _ref(_entry_name(about)), known)


def _entry_name(about: type[PluginSection]) -> str:
    return f"{about.kind}.entry"


def _definitions(
    base: Schema, about: type[PluginSection], registry: Registry
) -> Schema:
    """Describe one entry of a section, and the options of each of its plugins."""
    infos = registry.all(about.kind)
    reserved = dict(base["properties"])
    reserved[about.key] = {
        "description": reserved[about.key]["description"],
        "enum": [info.name for info in infos],
    }
    found: Schema = {}
    for info in infos:
        found |= _plugin(info, reserved)
    found[_entry_name(about)] = {
        "description": base["description"],
        "type": _MAPPING_OR_NULL,
        "properties": reserved,
        "allOf": [_choice(about, info) for info in infos],
    }
    return found


def _choice(about: type[PluginSection], info: PluginInfo) -> Schema:
    named = {"properties": {about.key: {"const": info.name}}, "required": [about.key]}
    return {"if": named, "then": _ref(f"{about.kind}.{info.name}")}


def _plugin(info: PluginInfo, reserved: Schema) -> Schema:
    """Describe the options of a plugin beside the reserved keys."""
    name = f"{info.kind}.{info.name}"
    options = info.plugin.Options.model_json_schema(
        ref_template=f"#/$defs/{name}.{{model}}"
    )
    nested = {f"{name}.{k}": d for k, d in options.pop("$defs", {}).items()}
    schema = {
        "description": (inspect.getdoc(info.plugin) or "").partition("\n")[0],
        "type": _MAPPING_OR_NULL,
        "properties": {**options.get("properties", {}), **reserved},
        "additionalProperties": False,
    }
    return {name: schema, **nested}
