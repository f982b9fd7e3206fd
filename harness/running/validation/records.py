"""What can be checked of one record alone: schema, id, identity and ledger."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.base import Problem, content_hash
from harness.records import Record, SampleRow, parse_record, violations
from harness.running.validation.samples import Metrics, check_samples

OF_EXAMPLES = ("gradient_health", "first_order_fidelity")
"""Diagnostics whose value is a mean over examples."""
MEAN_TOLERANCE = 0.02
"""Of such a mean: examples with fewer flips to draw weigh less in it."""
ROUNDING = 1e-9
"""Relative, of sums that were added up in another order."""


@dataclass(frozen=True)
class Checked:
    """What was found of one record."""

    problems: list[Problem]
    record: Record | None = None
    """Unless it cannot be read."""
    rows: Sequence[SampleRow] = ()
    """Those of a cell, if all of them are sound."""
    intact: bool = False
    """Whether the file of samples is what the record says, if it says something."""


def check_record(path: Path, metrics: Metrics) -> Checked:
    """Check one record and its samples.

    The results of a variant are recomputed with `metrics`, by label; those that are not
    there stay unchecked.
    """
    record, problems, values = parse_record(path)
    if record is None:
        return Checked(problems)
    if record.model_dump(mode="json") != values:  # of others, look closely
        problems += violations("record", values, path)
    problems += _id_problems(path, record)
    problems += _identity_problems(record)
    problems += _ledger_problems(record)
    problems += _diagnostic_problems(record)
    rows, fault, found = check_samples(path, record, metrics)
    located = [replace(x, file=x.file or str(path)) for x in (*problems, *found)]
    return Checked(located, record, rows, fault is None)


def _ledger_problems(record: Record) -> Iterator[Problem]:
    """Find what the results are said to cost beyond what was spent in all."""
    for phase, kept in record.ledger.kept.items():
        spent = record.ledger.spent.get(phase)
        if spent is None:
            message = "the phase is missing in what was spent in all"
            yield Problem("", ("ledger", "kept", phase), message)
            continue
        for name, part in kept:
            whole = getattr(spent, name)
            if None not in (part, whole) and part > whole * (1 + ROUNDING):
                message = f"{part} was kept, but {whole} was spent in all"
                yield Problem("", ("ledger", "kept", phase, name), message)


def _diagnostic_problems(record: Record) -> Iterator[Problem]:
    """Compare what a diagnostic says of all examples with what it says of each."""
    for i, answer in enumerate(record.diagnostics):
        values = answer.measured.get("values")
        if answer.id not in OF_EXAMPLES or answer.value is None or not values:
            continue
        known = [x.get("value") or 0.0 for x in values if isinstance(x, dict)]
        mean = math.fsum(known) / max(1, len(known))
        if abs(mean - answer.value) > MEAN_TOLERANCE:
            where = ("diagnostics", str(i), "value")
            yield Problem("", where, f"{answer.value}, but its examples give {mean}")


# --- identity -----------------------------------------------------------------------


def _id_problems(path: Path, record: Record) -> Iterator[Problem]:
    readable = f"{record.model.label}.{record.arm.label}.s{record.seed}"
    variant_prefix = f"{readable}-"
    if record.attack is not None:
        readable += f".{record.attack.label}"
    expected = f"{readable}-{content_hash(record.identity)[:8]}"
    if record.id != expected:
        yield Problem(
            "", ("id",), f"{record.id!r}, but labels and identity give {expected}"
        )
    if path.parent.name != record.id:
        yield Problem(
            "", ("id",), f"{record.id!r} lies in the folder {path.parent.name}"
        )
    own = record.variant == record.id
    if own if record.kind == "cell" else not own:
        yield Problem("", ("variant",), f"{record.variant!r} cannot be its variant")
    elif not record.variant.startswith(variant_prefix):
        yield Problem("", ("variant",), f"{record.variant!r} has other labels or seed")


def _identity_problems(record: Record) -> Iterator[Problem]:
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
    match = record.identity.get("match")
    if record.attack and (record.attack.match is None) != (match is None):
        yield _disagreement(("match",), match, record.attack.match)


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


def _disagreement(path: tuple[str, ...], hashed: Any, shown: Any) -> Problem:
    message = f"{hashed!r}, but elsewhere the record says {shown!r}"
    return Problem("", ("identity", *path), message)
