"""Which jobs do the units of a plan: one a variant, its cells as arrays after it.

A job waits for the jobs of all that its units need, however those end: where a unit
failed, what needs it gets its failed record at once, as in one process; where a unit is
missing, what needs it is left for later. So nothing waits for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.suite import Unit

ARRAY_MOST = 1000
"""Tasks of an array, at most: what clusters allow that state nothing else."""


@dataclass(eq=False)
class Job:
    """Units that an array of jobs does, or a single job."""

    name: str
    """Readable, and the only one of its submission."""
    tasks: list[list[Unit]]
    """The units of each job of the array."""
    after: list[Job] = field(default_factory=list)
    """The jobs of the same submission that it waits for."""
    queued: list[str] = field(default_factory=list)
    """The ids of jobs that it waits for and that are in the queue already."""

    @property
    def trains(self) -> bool:
        """Whether it does a variant."""
        return self.tasks[0][0].attack is None


def jobs_for(
    units: Iterable[Unit], queued: Mapping[str, Sequence[str]], cells_per_job: int
) -> list[Job]:
    """Spread units over jobs, each after those that it waits for.

    Units must come after all that they need; `queued` has the ids of the jobs in the
    queue by their units: of what is needed, and of units whose jobs are just ending.
    """
    groups: dict[object, _Group] = {}
    doing: dict[str, _Group] = {}
    for unit in units:
        after = {id(x): x for need in unit.needs if (x := doing.get(need.id))}
        waits = {job for x in (unit, *unit.needs) for job in queued.get(x.id, ())}
        key = unit.attack is None, unit.variant.id, frozenset(after), frozenset(waits)
        group = groups.setdefault(key, _Group([*after.values()], sorted(waits)))
        group.units.append(unit)
        doing[unit.id] = group
    names: set[str] = set()
    return [
        job for group in groups.values() for job in group.jobs(cells_per_job, names)
    ]


@dataclass(eq=False)
class _Group:
    """Units that wait for the same jobs: a variant, or some of its cells."""

    after: list[_Group]
    queued: list[str]
    units: list[Unit] = field(default_factory=list)
    made: list[Job] = field(default_factory=list)

    def jobs(self, cells_per_job: int, names: set[str]) -> list[Job]:
        """Make its jobs, once those that it waits for are made; add their names."""
        after = [job for group in self.after for job in group.made]
        tasks = [*_parts(self.units, cells_per_job)]
        self.made = [
            Job(_name(self.units[0], names), part, after, self.queued)
            for part in _parts(tasks, ARRAY_MOST)
        ]
        return self.made


def _parts(things: list, size: int) -> Iterator[list]:  # type: ignore[type-arg]
    for start in range(0, len(things), size):
        yield things[start : start + size]


def _name(unit: Unit, names: set[str]) -> str:
    """Return a name for what does a unit and its like, and add it to those known."""
    variant = unit.variant
    stem = f"{variant.model}.{variant.arm}.s{variant.seed}"
    stem = stem if unit.attack is None else f"{stem}.cells"
    count = 1 + sum(x == stem or x.rpartition("-")[0] == stem for x in names)
    name = stem if count == 1 else f"{stem}-{count}"
    names.add(name)
    return name
