"""Validate suites, records and whole run folders: what users put in their CI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from harness.base import (
    HarnessError,
    Problem,
    Progress,
    RecordError,
    SuiteError,
    UsageError,
    spread,
)
from harness.records import Record
from harness.running.diagnostics.replay import FILE, TOLERANCE_NATS, replays
from harness.running.folder import RunFolder, UnitState, state_of
from harness.running.surveying import KINDS, Survey, surveyed
from harness.running.validation.cells import (
    CleanRow,
    CleanRows,
    compare_budgets,
    subject_key,
)
from harness.running.validation.limits import Limits
from harness.running.validation.records import check_record
from harness.running.validation.samples import Metrics
from harness.running.validation.seeds import Sign, Twins, signs
from harness.running.validation.sources import Prompts, Sources
from harness.running.validation.spending import Spending
from harness.running.validation.subjects import Subjects, base_models
from harness.running.validation.suites import Suites, against
from harness.suite import (
    Experiment,
    Layer,
    Place,
    Plan,
    UnitKind,
    Unloaded,
    load_experiment,
    make_plan,
    parse,
    validate_suite,
)


@dataclass(frozen=True)
class Replaying:
    """That runs are replayed, and how much of them."""

    rows: int | None = None
    """How many rows of each cell and metric; None for all."""
    seed: int = 0
    """Draws the rows."""
    device: str = "cpu"


@dataclass(frozen=True)
class Validation:
    """What was checked, and what was found."""

    checked: tuple[str, ...]
    """The files and folders."""
    problems: tuple[Problem, ...]
    """What is wrong with them."""
    surveys: tuple[Survey, ...] = ()
    """Of the run folders whose plan could be made."""

    @property
    def exit_code(self) -> int:
        """0 where there is no error, 1 for records, 2 for suites."""
        return max((problem.exit_code for problem in self.errors), default=0)

    @property
    def errors(self) -> list[Problem]:
        """Problems that are more than a warning."""
        return [problem for problem in self.problems if problem.severity == "error"]


def validate(
    paths: Sequence[Path],
    plugins: Sequence[Path] = (),
    *,
    trust: bool = False,
    replaying: Replaying | None = None,
    published: Path | None = None,
    processes: int | None = None,
) -> Validation:
    """Check suites (YAML), records (JSON) and run folders.

    `plugins` are files or folders that are loaded; those that a suite or a run names
    itself are not, unless there is `trust`: what needs them is left unjudged, with a
    warning. Runs are replayed where `replaying` says so, and compared with the suite
    that was `published` for them. The records of a run are spread over `processes`, by
    default over all cores. Raises UsageError for a path that is none of these, and
    where there is no run to do that with.
    """
    if (replaying or published) and not any(path.is_dir() for path in paths):
        raise UsageError("--replay and --suite are about run folders: name one")
    problems: list[Problem] = []
    surveys: list[Survey] = []
    for path in paths:
        if not path.is_dir():
            problems += _check(path, plugins, trust)
            continue
        found, own = _check_run(RunFolder(path), plugins, trust, processes)
        problems += own
        if found is None:
            continue
        surveys.append(found)
        if published:
            problems += against(published, found, plugins, trust)
        if replaying:
            problems += _replayed(found, replaying)
    located = tuple(_located(problems))
    return Validation(tuple(map(str, paths)), located, tuple(surveys))


def _replayed(found: Survey, how: Replaying) -> list[Problem]:
    from harness.running.validation.replaying import replay  # loads torch

    with Progress(f"replay of {found.folder.root}", "questions") as progress:
        return [*replay(found, how.rows, how.seed, how.device, progress.update)]


def _check(path: Path, plugins: Sequence[Path], trust: bool) -> Iterable[Problem]:
    if path.suffix in (".yaml", ".yml"):
        return validate_suite(path, plugins=plugins, trust=trust)
    if path.suffix == ".json":
        metrics = _metrics_beside(path, plugins, trust)
        return check_record(path, metrics).problems
    raise UsageError(f"{path} is neither a suite (YAML), a record (JSON) nor a folder")


def _located(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Fill in the lines of keys in records, as far as they are missing."""
    last = lru_cache(maxsize=1)(_lines)
    for problem in problems:
        if problem.line is None and problem.path and problem.file.endswith(".json"):
            line = last(problem.file).place(problem.path).line
            yield replace(problem, line=line)
        else:
            yield problem


def _lines(file: str) -> Layer:
    # JSON is YAML, and the reader of YAML remembers lines.
    path = Path(file)
    return parse(path.read_text(encoding="utf-8"), Place(file, 1, path.parent))


# --- run folders --------------------------------------------------------------------


def _check_run(
    folder: RunFolder, plugins: Sequence[Path], trust: bool, processes: int | None
) -> tuple[Survey | None, list[Problem]]:
    """Check a run folder; return what it holds, if the plan of its suite can be made.

    Raises UsageError where there is no suite.
    """
    plan, problems = _planned(folder, plugins, trust)
    states: dict[tuple[UnitKind, str], UnitState] = {}
    together = _Together(folder, plan)
    files = [(kind, path) for kind in KINDS for path in folder.records(kind)]
    alone = spread(_Alone(folder, plan), [path for _, path in files], processes)
    for (kind, path), found in zip(files, alone, strict=True):
        problems += found.problems
        if found.record is not None:
            problems += together.compare(path, found.record, found)
            if found.intact:
                states[kind, path.parent.name] = state_of(found.record)
    problems += together.problems()
    if plan is None:
        return None, problems

    def state(kind: UnitKind, unit_id: str) -> UnitState:
        return states.get((kind, unit_id)) or folder.state(kind, unit_id)

    survey = surveyed(folder, plan, state)
    problems += base_models(plan.experiment, folder.suite_file)
    problems += _completeness_problems(survey)
    problems += _replay_problems(survey)
    return survey, problems


@dataclass(frozen=True)
class _Found:
    """What is found of a record alone, and what the others are to be compared with."""

    problems: list[Problem]
    record: Record | None = None
    intact: bool = False
    """Whether the file of samples is what the record says, if it says something."""
    clean: Sequence[CleanRow] = ()
    signs: Sequence[Sign] = ()
    prompts: Prompts = field(default_factory=list)


class _Alone:
    """Checks records against their suite and what lies beside them, one by one."""

    def __init__(self, folder: RunFolder, plan: Plan | None) -> None:
        self._metrics = _loaded(plan.experiment) if plan else {}
        self._of_record = (Suites(folder, plan).compare, Subjects().compare)
        self._spending, self._limits = Spending(plan), Limits(folder, plan)
        self._sources = Sources(plan)

    def __call__(self, path: Path) -> _Found:
        """Check the record at a path, and its rows."""
        checked = check_record(path, self._metrics)
        record, rows = checked.record, checked.rows
        if record is None:
            return _Found(checked.problems)
        problems = checked.problems
        for of_record in self._of_record:
            problems += of_record(path, record)
        problems += self._spending.compare(path, record, rows)
        problems += self._limits.compare(_rows_file(path, record), record, rows)
        return _Found(
            problems,
            record,
            checked.intact,
            [CleanRow.of(row) for row in rows],
            [*signs(record, rows)],
            self._sources.prompts(record, rows),
        )


def _rows_file(path: Path, record: Record) -> Path:
    return path.parent / record.samples.path if record.samples else path


class _Together:
    """What records say of each other."""

    def __init__(self, folder: RunFolder, plan: Plan | None) -> None:
        self._records: list[tuple[Path, Record]] = []
        self._suites, self._sources = Suites(folder, plan), Sources(plan)
        self._clean, self._twins = CleanRows(), Twins()

    def compare(self, path: Path, record: Record, found: _Found) -> Iterator[Problem]:
        """Take in a record and what its rows show; yield what contradicts."""
        self._records.append((path, record))
        file = _rows_file(path, record)
        yield from self._clean.compare(file, record, found.clean)
        yield from self._twins.compare(file, record, found.signs)
        self._sources.note(file, record, found.prompts)

    def problems(self) -> Iterator[Problem]:
        """Yield what only all records together show."""
        yield from self._suites.problems()
        yield from self._sources.problems()
        yield from _reference_problems(self._records)
        yield from compare_budgets(self._records)


def _planned(
    folder: RunFolder, plugins: Sequence[Path], trust: bool
) -> tuple[Plan | None, list[Problem]]:
    """Plan the run's own suite; without it, records are still checked."""
    folder.check()
    try:
        suite = load_experiment(folder.suite_file, plugins=plugins, trust=trust)
        return make_plan(suite), list(suite.warnings)
    except SuiteError as error:
        return None, list(error.problems)
    except HarnessError as error:
        message = f"the plan cannot be made: {error}"
        return None, [Problem(str(folder.suite_file), (), message, exit_code=2)]


def _loaded(experiment: Experiment) -> Metrics:
    """Return the metrics, but for those whose plugins are not loaded."""
    metrics = experiment.metrics.items()
    return {k: x for k, x in metrics if not isinstance(x, Unloaded)}


def _metrics_beside(path: Path, plugins: Sequence[Path], trust: bool) -> Metrics:
    """Return the metrics of the run that a record lies in, if it lies in one."""
    above = path.absolute().parents
    if len(above) < 3 or not RunFolder(above[2]).suite_file.is_file():
        return {}
    suite = RunFolder(above[2]).suite_file
    try:
        return _loaded(load_experiment(suite, plugins=plugins, trust=trust))
    except HarnessError:  # the record alone was asked for; its run is not at issue
        return {}


def _reference_problems(records: Sequence[tuple[Path, Record]]) -> Iterator[Problem]:
    """Find cells whose variant is not there."""
    variants = {r.id: subject_key(r) for _, r in records if r.kind == "variant"}
    for path, record in records:
        key = subject_key(record)
        if record.kind == "variant" or variants.get(record.variant) == key:
            continue
        if record.variant in variants:
            message = f"the variant {record.variant!r} was made in another way"
        elif key in variants.values():
            continue  # measured with other metrics since: the same subject
        else:
            message = f"there is no record of the variant {record.variant!r}"
        yield Problem(str(path), ("variant",), message)


def _completeness_problems(planned: Survey) -> Iterator[Problem]:
    for unit in planned.units:
        if unit.state.status == "missing":
            message = f"the {unit.kind} {unit.id} is missing"
            yield Problem(str(planned.folder.suite_file), (), message)
        elif unit.state.status == "failed":
            message = f"the {unit.kind} failed: {unit.state.reason}"
            file = planned.folder.record_path(unit.kind, unit.id)
            yield Problem(str(file), ("error",), message)


def _replay_problems(planned: Survey) -> Iterator[Problem]:
    """Find complete cells whose rows a fresh process disputes or has not seen.

    That it could not check them is a warning: verdicts take it into account.
    """
    if planned.plan.experiment.suite.diagnostics == "none":
        return
    path = planned.folder.root / FILE
    cells = [
        unit.state.record
        for unit in planned.units
        if unit.state.record is not None
        and (unit.kind, unit.state.status) == ("cell", "complete")
    ]
    if cells and not path.is_file():
        message = "no cell was replayed: run the suite again to its end"
        yield Problem(str(path), (), message, severity="warning")
        return
    try:
        found = replays(planned.folder, cells)
    except RecordError as error:
        yield Problem(str(path), (), str(error).removeprefix(f"{path} "))
        return
    for each in found:
        if each.fault is not None:
            yield Problem(str(path), (each.cell,), each.fault, severity="warning")
        elif each.largest is not None and each.largest > TOLERANCE_NATS:
            message = f"a replayed loss is {each.largest:.3g} nats/token off the record"
            yield Problem(str(path), (each.cell,), message)
