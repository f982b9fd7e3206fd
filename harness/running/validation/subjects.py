"""Whether the frozen subjects, and what is known of them, are those of the records."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import pydantic

from harness.base import HarnessError, Problem
from harness.records import Cost, Ledger, Phase, Record
from harness.running.folder import MADE, TRAINING, Made, made_sha256, model_sha256
from harness.running.validation.cells import subject_key
from harness.suite import Experiment

_HASH = re.compile(r"[0-9a-f]{64}")
_CLOSE = 1e-9
MAKING: tuple[Phase, ...] = ("train", "certify", "freeze")
"""The phases that take place where a subject is made, and nowhere else."""


class Subjects:
    """What lies behind ``model`` in the folders of variants."""

    def __init__(self) -> None:
        self._model_sha256 = lru_cache(model_sha256)  # variants may share a subject

    def compare(self, path: Path, record: Record) -> Iterator[Problem]:
        """Yield where subject, making and training are not what a variant says."""
        if record.kind != "variant":
            return
        model = path.parent / "model"
        if model.is_symlink() and not model.exists():
            leads = f"it leads to {model.readlink()}, which is not there"
            message = f"{leads}: nothing can be scored again on this subject"
            yield Problem(str(model), (), message)
        if record.status != "complete":
            return
        if model.exists():
            yield from self._linked(model, path, record)
        yield from _training(path, record)

    def _linked(self, model: Path, path: Path, record: Record) -> Iterator[Problem]:
        made = model.resolve().parent
        key = subject_key(record)
        if model.is_symlink() and _HASH.fullmatch(made.name) and made.name != key:
            message = f"it leads to the subject {made.name}, and the record is of {key}"
            yield Problem(str(model), (), message)
        hashes = {"model": self._model_sha256(model.resolve())}
        if (made / MADE).is_file():
            with suppress(OSError, ValueError, AttributeError):  # said below
                hashes["made"] = made_sha256(made / MADE)
        for name, found in hashes.items():
            if record.frozen is not None and getattr(record.frozen, name) != found:
                what = MADE if name == "made" else "the model's files"
                message = f"{what} in {made} have another hash: they were changed"
                yield Problem(str(path), ("frozen", name), message)
        if (made / MADE).is_file():
            yield from _making(made / MADE, path, record)


def _making(file: Path, path: Path, record: Record) -> Iterator[Problem]:
    """Compare a record with how its subject was made."""
    try:
        made = Made.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, pydantic.ValidationError) as error:
        reason = str(error).splitlines()[0]
        yield Problem(str(file), (), f"cannot be read: {reason}")
        return
    for name in ("certificate", "recovery", "derivation"):
        if getattr(record, name) != getattr(made, name):
            yield Problem(str(path), (name,), f"it is not that of {file}")
    if record.model.parameters != made.parameters:
        message = f"{record.model.parameters}, but {made.parameters} in {file}"
        yield Problem(str(path), ("model", "parameters"), message)
    for phase in MAKING:
        if _work(record.ledger, phase) != _work(made.ledger, phase):
            yield Problem(
                str(path), ("ledger", "kept", phase), f"it is not that of {file}"
            )


def _work(ledger: Ledger, phase: Phase) -> Cost | None:
    """Return what a phase cost, but for what differs where it takes place again."""
    cost = ledger.kept.get(phase)
    measured = {"seconds": 0.0, "peak_memory_bytes": None}
    return None if cost is None else cost.model_copy(update=measured)


# --- training -----------------------------------------------------------------------


def _training(path: Path, record: Record) -> Iterator[Problem]:
    """Compare what a record says of recovery with what it asked for, and its log."""
    found, asked = record.recovery, record.arm.recovery
    if found is None:
        return
    if (found.status == "trained") != (asked is not None):
        message = f"{found.status!r}, but its arm gets {'' if asked else 'no '}recovery"
        yield Problem(str(path), ("recovery", "status"), message)
        return
    log = path.parent / TRAINING
    if asked is None or not log.is_file():
        return
    try:
        text = log.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        yield from _against_log(path, record, log, lines)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield Problem(str(log), (), f"is no log of a training: {error!r}")


def _against_log(
    path: Path, record: Record, log: Path, lines: list[dict[str, Any]]
) -> Iterator[Problem]:
    found = record.recovery
    assert found is not None
    last = max((x["step"] for x in lines if x["kind"] == "train"), default=0)
    if last != found.steps:
        message = f"{found.steps}, but {log.name} ends at step {last}"
        yield Problem(str(path), ("recovery", "steps"), message)
    evaluations = [x["loss"] for x in lines if x["kind"] == "evaluation"]
    if not evaluations:
        return
    ends = {"loss_before": evaluations[0], "loss_after": evaluations[-1]}
    for name, logged in ends.items():
        stated = getattr(found, name)
        if stated is None or stated.value is None:
            continue
        if logged is None or abs(stated.value - logged) > _CLOSE:
            message = f"{stated.value}, but {log.name} says {logged}"
            yield Problem(str(path), ("recovery", name), message)


# --- base models --------------------------------------------------------------------


def base_models(experiment: Experiment, suite: Path) -> Iterator[Problem]:
    """Compare the fingerprints of models with their files, where those are here.

    All is hashed again: a cache of hashes could be a forgery too.
    """
    for label, adapter in experiment.models.items():
        stated = experiment.suite.models[label].fingerprint
        try:
            if stated is None or adapter.missing():
                continue
            with tempfile.TemporaryDirectory() as cache:
                found = adapter.fingerprint(Path(cache))
        except (HarnessError, OSError):
            continue
        if found != stated:
            where = ("models", label, "fingerprint")
            message = f"{stated}, but the model's files give {found}"
            yield Problem(str(suite), where, message)
