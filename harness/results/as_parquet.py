"""All samples of a run as one typed table, in a parquet file."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from harness.base import UsageError
from harness.records import SampleRow
from harness.results.loaded import Run
from harness.running import SurveyedUnit

if TYPE_CHECKING:
    import pyarrow

TRACE = "trace"
"""The column of JSON: what a step of an attack says is up to the attack."""


def export_parquet(run: Run, file: Path) -> Path:
    """Write the rows of all complete cells into a parquet file; return its path.

    Model, arm, seed, attack and the cell's id stand before the fields of the row, with
    their types; a trace is JSON. Each cell is a row group, so that tools read single
    ones. Raises UsageError where there is no row.
    """
    import pyarrow
    from pyarrow import parquet

    schema, temporary = _schema(), file.with_name(f".{file.name}.part")
    cells = [unit for unit in run.survey.units if run.rows(unit)]
    if not cells:
        raise UsageError(f"{run.path} has no complete cell with samples")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for unit in cells:
                rows = list(_rows(run, unit))
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return file


def _rows(run: Run, unit: SurveyedUnit) -> Iterator[dict[str, Any]]:
    labels = {"model": unit.model, "arm": unit.arm, "seed": unit.seed}
    labels |= {"attack": unit.attack, "cell": unit.id}
    for row in run.rows(unit):
        fields = row.model_dump(mode="json")
        yield {**labels, **fields, TRACE: json.dumps(fields[TRACE])}


def _schema() -> pyarrow.Schema:
    import pyarrow

    labels = {"model": str, "arm": str, "seed": int, "attack": str, "cell": str}
    fields = {name: x.annotation for name, x in SampleRow.model_fields.items()}
    types_ = labels | fields | {TRACE: str}
    return pyarrow.schema([(name, _arrow(kind)) for name, kind in types_.items()])


def _arrow(kind: Any) -> pyarrow.DataType:
    """Return the type of a column for the annotation of a field; any may be null."""
    import pyarrow

    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (known,) = (part for part in parts if part is not types.NoneType)
        return _arrow(known)
    if origin is list:
        return pyarrow.list_(_arrow(parts[0]))
    if origin is Literal:
        return pyarrow.string()
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        fields = kind.model_fields.items()
        return pyarrow.struct([(name, _arrow(x.annotation)) for name, x in fields])
    plain = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    return {**plain, bool: pyarrow.bool_()}[kind]
