"""The report of a run as JSON: what ``report.json`` holds."""

from __future__ import annotations

from typing import Any

import pydantic

from harness.base import Strict

REPORT_VERSION = 1


class ReportNumber(Strict):
    """A number of a table."""

    value: float
    """In full; nothing is rounded."""
    kind: str
    """What it is: number, count, perplexity, nats, fraction, share, flops, p, ..."""
    signed: bool
    """Whether it is a difference, shown with its sign."""
    std: float | None
    """Sample standard deviation (ddof 1) over seeds; null where there is none."""
    interval: tuple[float, float] | None
    """Its 95 % interval; null where there is none."""
    n: int | None
    """How many seeds it rests on; null where that is not said."""
    planned: int | None
    """How many seeds the arm was to get; null where that is not said."""
    mark: str
    """Refers to one of the table's notes; empty for none."""


class ReportGap(Strict):
    """A number that is not there."""

    value: None
    """Always null."""
    reason: str
    """Why: missing, failed, invalid, not measured, ..."""


class _About(Strict):
    """What a row or a column is about; what does not apply is left out."""

    model_config = pydantic.ConfigDict(extra="allow")
    model: str | None = None
    """The model's label."""
    arm: str | None = None
    """The arm's label."""
    against: str | None = None
    """The arm that it is held against."""
    made_on: str | None = None
    """The arm that adversarial prompts come from."""
    attack: str | None = None
    """The attack's label."""
    control: str | None = None
    """The label of the control that the attack is held against."""
    metric: str | None = None
    """The metric's label."""
    estimate: str | None = None
    """The name of one of the metric's estimates."""


class ReportRow(_About):
    """A row: what it is about, and each of its cells by the name of its column."""

    __pydantic_extra__: dict[str, ReportNumber | ReportGap | str]


class ReportColumn(_About):
    """A column: its name, and what it is about."""

    model_config = pydantic.ConfigDict(extra="forbid")
    name: str
    """The key of its cells in rows: its group and its title."""
    title: str
    """Its heading."""
    group: str | None
    """The group of neighbouring columns that it belongs to; null for none."""


class ReportTable(Strict):
    """A table."""

    title: str
    """Its heading."""
    caption: str
    """How to read it."""
    notes: tuple[str, ...]
    """What marks mean."""
    columns: tuple[ReportColumn, ...]
    """Its columns, in order."""
    rows: tuple[ReportRow, ...]
    """Its rows, in order."""


class ReportDocument(Strict):
    """A whole report."""

    model_config = pydantic.ConfigDict(extra="allow")
    schema_version: int
    """The version of this schema."""
    title: str
    """What it is a report of."""
    verdicts: dict[str, Any] | None
    """What ``verdicts.json`` holds; null where nothing was judged."""
    facts: dict[str, str]
    """What was run."""
    provenance: dict[str, str]
    """What pins down the numbers."""
    warnings: tuple[str, ...]
    """What a reader has to know first."""
    methods: str
    """What was done, in a paragraph for a paper; empty where nothing was."""
    tables: dict[str, ReportTable]
    """All tables by key."""
