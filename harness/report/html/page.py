"""Put the page together: one file, with all its data, its styles and its program."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

from harness.base import visible, visible_json
from harness.report.content import Report, shown
from harness.report.figures.making import figures
from harness.report.figures.parts import Figure
from harness.report.formats.csv import table_csv, written
from harness.report.formats.json import table_document
from harness.report.formats.latex import table_latex
from harness.report.html import samples, views

POLICY = (
    "default-src 'none'; img-src data:; style-src {css}; script-src {js}; "
    "base-uri 'none'; form-action 'none'"
)
"""Nothing may be fetched, and nothing runs but the program that the page came with."""


def render_html(report: Report) -> str:
    """Return the report as a page that needs no network and no other file.

    Texts of the run are shown as text, whatever they hold.
    """
    import jinja2
    from markupsafe import Markup

    drawn = figures(report)
    css, js = _asset("page.css"), _asset("page.js")
    template = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_readable
    ).from_string(_asset("page.html.jinja"))
    return template.render(
        policy=POLICY.format(css=_hash(css), js=_hash(js)),
        css=Markup(css),  # noqa: S704
        js=Markup(js),  # noqa: S704
        title=dict(report.facts).get("suite", report.title),
        facts=[fact for fact in report.facts if fact[0] != "suite"],
        warnings=[views.warned(warning) for warning in report.warnings],
        cards=list(views.cards(report.verdicts)) if report.verdicts else [],
        claims=list(views.claims(report.verdicts)) if report.verdicts else [],
        figures=[views.figure_view(figure) for figure in drawn],
        tables=[views.table_view(table) for table in report.tables],
        samples=_samples(report),
        provenance=list(views.provenance(report)),
        methods=report.methods,
        packed_exports=_packed(dict(_exports(report, drawn))),
        kinds=_kinds,
    )


def _readable(value: Any) -> Any:
    """Spell out what cannot be seen in a text; markup of ours is left alone."""
    return visible(value) if type(value) is str else value


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _packed(document: Any) -> str:
    """Return JSON as a page can hold it: deflated, in base64."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 6)).decode()


# --- what can be taken away ---------------------------------------------------------


def _kinds(key: str) -> list[tuple[str, str]]:
    tables = [("csv", "CSV"), ("json", "JSON"), ("tex", "LaTeX")]
    return tables[:2] if key.startswith("figure.") else tables


def _exports(
    report: Report, drawn: Sequence[Figure]
) -> Iterator[tuple[str, dict[str, str]]]:
    for table, plain in zip(report.tables, shown(report).tables, strict=True):
        document = json.dumps(table_document(table), indent=1, ensure_ascii=False)
        yield (
            table.key,
            {
                "csv": table_csv(plain),
                "json": visible_json(document),
                "tex": table_latex(plain),
            },
        )
    for figure in drawn:
        lines = list(_points(figure))
        names, *values = lines
        records = [dict(zip(names, x, strict=True)) for x in values]
        yield (
            f"figure.{figure.key}",
            {"csv": written(lines), "json": json.dumps(records, indent=1)},
        )


def _points(figure: Figure) -> Iterator[Sequence[Any]]:
    yield ("panel", "series", "x", "y", "low", "high")
    for panel in figure.panels:
        for series in panel.series:
            for at in series.points:
                yield (panel.title, series.name, *at)


# --- samples ------------------------------------------------------------------------


def _samples(report: Report) -> dict[str, Any] | None:
    """Return what the viewer needs; None where there is no sample."""
    if report.results is None:
        return None
    found = samples.worst(report.results)
    if not found.rows:
        return None
    embedded = samples.embedded(report.results, found)
    n, total = len(found.rows), found.total
    which = f"All {total:,}"
    if n < total:
        which = f"The {n:,} of {total:,} with the highest dL"
    choices = {
        name: list(dict.fromkeys(str(cell[name]) for cell in embedded["cells"]))
        for name in ("model", "arm", "attack", "seed")
    }
    return {
        "lede": (
            f"{which}, over all arms, seeds, attacks and controls. Marked tokens were "
            "changed; arrow keys go through the list."
        ),
        "choices": [(name, x) for name, x in choices.items() if len(x) > 1],
        "packed": _packed(embedded),
    }
