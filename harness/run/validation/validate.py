"""Validate suites, records and whole run folders: what users put in their CI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness.base import HarnessError, SuiteError, UsageError
from harness.records import Record
from harness.run.folder import RunFolder
from harness.run.surveying import Survey, Unit, survey
from harness.run.validation.findings import Finding, Validation, of_suite
from harness.run.validation.records import check_record, subject_key
from harness.run.validation.samples import Metrics
from harness.suite import load_experiment, validate_suite


def validate(paths: Sequence[Path], plugins: Sequence[Path] = ()) -> Validation:
    """Check suites (YAML), records (JSON) and run folders.

    `plugins` are files or folders that suites may use besides those they name. Raises
    UsageError for a path that is none of these.
    """
    findings = [finding for path in paths for finding in _check(path, plugins)]
    return Validation(tuple(map(str, paths)), tuple(findings))


def _check(path: Path, plugins: Sequence[Path]) -> Iterable[Finding]:
    if path.is_dir():
        return _check_run(RunFolder(path))
    if path.suffix in (".yaml", ".yml"):
        return _check_suite(path, plugins)
    if path.suffix == ".json":
        return check_record(path, _metrics_beside(path))[1]
    raise UsageError(f"{path} is neither a suite (YAML), a record (JSON) nor a folder")


def _check_suite(path: Path, plugins: Sequence[Path]) -> list[Finding]:
    return [of_suite(problem) for problem in validate_suite(path, plugins=plugins)]


# --- run folders --------------------------------------------------------------------


def _check_run(folder: RunFolder) -> list[Finding]:
    if not folder.suite_file.is_file():
        raise UsageError(
            f"{folder.root} is no run folder: it has no {folder.suite_file.name}"
        )
    planned, findings = _survey(folder)
    metrics: Metrics = planned.plan.experiment.metrics if planned else {}
    records: list[tuple[Path, Record]] = []
    for path in (*folder.records("variant"), *folder.records("cell")):
        record, found = check_record(path, metrics)
        findings += found
        if record is not None:
            records.append((path, record))
    findings += _reference_findings(records)
    if planned is not None:
        findings += _completeness_findings(planned)
    return findings


def _survey(folder: RunFolder) -> tuple[Survey | None, list[Finding]]:
    """Plan the run's own suite; without it, records are still checked."""
    try:
        return survey(folder.root), []
    except SuiteError as error:
        return None, [of_suite(problem) for problem in error.problems]
    except HarnessError as error:
        message = f"the plan cannot be made: {error}"
        return None, [Finding(str(folder.suite_file), "", message, exit_code=2)]


def _metrics_beside(path: Path) -> Metrics:
    """Return the metrics of the run that a record lies in, if it lies in one."""
    folder = RunFolder(path.absolute().parents[2])
    if not folder.suite_file.is_file():
        return {}
    try:
        return load_experiment(folder.suite_file).metrics
    except HarnessError:  # the record alone was asked for; its run is not at issue
        return {}


def _reference_findings(records: Sequence[tuple[Path, Record]]) -> Iterator[Finding]:
    """Find cells whose variant is not there."""
    variants = {r.id: subject_key(r) for _, r in records if r.kind == "variant"}
    for path, record in records:
        if record.kind == "variant" or variants.get(record.variant) == subject_key(
            record
        ):
            continue
        if record.variant in variants:
            message = f"the variant {record.variant!r} was made in another way"
        elif subject_key(record) in variants.values():
            continue  # measured with other metrics since: the same subject
        else:
            message = f"there is no record of the variant {record.variant!r}"
        yield Finding(str(path), "variant", message)


def _completeness_findings(planned: Survey) -> Iterator[Finding]:
    for unit in planned.units:
        if unit.state.status == "missing":
            message = f"the {unit.kind} {unit.id} is missing"
            yield Finding(str(planned.folder.suite_file), "", message)
        elif unit.state.status == "failed":
            message = f"the {unit.kind} failed: {unit.state.reason}"
            yield Finding(str(_record_file(planned, unit)), "error", message)


def _record_file(planned: Survey, unit: Unit) -> Path:
    return planned.folder.record_path(unit.kind, unit.id)
