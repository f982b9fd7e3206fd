"""What can be checked of one record alone: its schema, its id, and its identity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.base import RecordError
from harness.records import Fault, Record, faults, read_document
from harness.run.validation.findings import Finding, at_fault
from harness.run.validation.samples import Metrics, check_samples
from harness.suite import content_hash

SUBJECT_KEYS = ("schema_version", "model", "arm", "recovery", "seed")
"""The part of an identity that the frozen weights depend on."""


def check_record(path: Path, metrics: Metrics) -> tuple[Record | None, list[Finding]]:
    """Check one record and its samples; return it unless it cannot be read.

    The results of a variant are recomputed with `metrics`, by label; those that are not
    there stay unchecked.
    """
    try:
        document = read_document(path)
    except RecordError as error:
        line = getattr(error.__cause__, "lineno", 1)
        return None, [Finding(str(path), "", _reason(error, path), line)]
    broken = faults(document)
    if broken:
        return None, [at_fault(path, fault) for fault in broken]
    record = Record.model_validate(document)
    found = [*_id_faults(path, record), *_identity_faults(record)]
    findings = [at_fault(path, fault) for fault in found]
    if record.samples is not None:
        findings += check_samples(path, record, metrics)
    return record, findings


def subject_key(record: Record) -> str:
    """Return what identifies the subject of a variant or a cell: how it was made."""
    made = {key: record.identity.get(key) for key in SUBJECT_KEYS}
    return content_hash(made)


def _reason(error: RecordError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


# --- identity -----------------------------------------------------------------------


def _id_faults(path: Path, record: Record) -> Iterator[Fault]:
    readable = f"{record.model.label}.{record.arm.label}.s{record.seed}"
    variant_prefix = f"{readable}-"
    if record.attack is not None:
        readable += f".{record.attack.label}"
    expected = f"{readable}-{content_hash(record.identity)[:8]}"
    if record.id != expected:
        yield Fault(("id",), f"{record.id!r}, but labels and identity give {expected}")
    if path.parent.name != record.id:
        yield Fault(("id",), f"{record.id!r} lies in the folder {path.parent.name}")
    own = record.variant == record.id
    if own if record.kind == "cell" else not own:
        yield Fault(("variant",), f"{record.variant!r} cannot be its variant")
    elif not record.variant.startswith(variant_prefix):
        yield Fault(("variant",), f"{record.variant!r} has other labels or seed")


def _identity_faults(record: Record) -> Iterator[Fault]:
    """Compare what the id is computed from with what the record shows."""
    for path, shown in _shown(record):
        hashed = _at(record.identity, path)
        if hashed != shown:
            yield _disagreement(path, hashed, shown)
    for path, options in _shown_options(record):
        hashed = _at(record.identity, path)
        for name in hashed if isinstance(hashed, dict) else ():
            if not _same_option(options.get(name), hashed[name]):
                yield _disagreement((*path, name), hashed[name], options.get(name))
    if record.attack and (record.attack.match is None) != (
        record.identity.get("match") is None
    ):
        yield _disagreement(("match",), record.identity["match"], record.attack.match)


def _shown(record: Record) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield ("schema_version",), record.schema_version
    yield ("seed",), record.seed
    yield ("limit",), record.suite.limit
    yield ("recovery",), record.arm.recovery
    yield ("model", "adapter"), record.model.adapter
    yield ("model", "fingerprint"), record.model.fingerprint
    yield ("arm", "constraint"), record.arm.constraint
    if record.attack is not None:
        yield ("attack",), record.attack.attack
        yield ("examples",), record.attack.examples
        yield ("tokens",), record.attack.tokens.rules or None


def _shown_options(
    record: Record,
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    yield ("model", "options"), record.model.options
    yield ("arm", "options"), record.arm.options
    if record.attack is not None:
        yield ("options",), record.attack.options


def _at(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _same_option(shown: Any, hashed: Any) -> bool:
    """Compare an option; corpora and files, hashed by contents, are shown by name."""
    if isinstance(shown, str):
        by_contents = isinstance(hashed, dict) or str(hashed).startswith("sha256:")
        return by_contents or shown == hashed
    if isinstance(shown, list) and isinstance(hashed, list):
        pairs = zip(shown, hashed, strict=False)
        return len(shown) == len(hashed) and all(_same_option(*pair) for pair in pairs)
    return bool(shown == hashed)


def _disagreement(path: tuple[str, ...], hashed: Any, shown: Any) -> Fault:
    message = f"{hashed!r}, but elsewhere the record says {shown!r}"
    return Fault(("identity", *path), message)
