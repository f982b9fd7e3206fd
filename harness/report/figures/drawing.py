"""Draw figures with matplotlib: for papers as PDF and SVG, and panel by panel."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base import visible, write_atomic
from harness.report.figures.parts import At, Axis, Figure, Mark, Numbers, Panel, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#aa4499",
    "#b8860b",
    "#56b4e9",
    "#882255",
    "#666699",
)
"""Told apart with any common form of colour blindness (after Okabe and Ito, Tol)."""
INK, MUTED, GRID, SHADE = "#1b1b1b", "#5f5f5f", "#dddddd", "#ececec"
WIDTH, HEIGHT = 3.4, 2.3
"""Of a panel, in inches: a column of a paper, or a phone."""
ROW, LONGEST, LONGEST_SERIES = 0.24, 30, 36
"""Height of a line of a row's name, in inches, and how many letters a line of it, and
one of the legend, has at most."""
COLUMNS = 2
"""Panels beside each other in a paper."""
_SETTINGS: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "harness",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.labelsize": 8.5,
    "xtick.major.width": 0.6,
    "xtick.minor.size": 0,
    "ytick.color": MUTED,
    "ytick.labelsize": 8.5,
    "ytick.major.width": 0.6,
    "ytick.minor.size": 0,
}

Limits = tuple[float, float] | None


def panel_svg(panel: Panel, limits: Limits = None) -> str:
    """Return a panel as SVG, its text as text; `limits` are those of its y axis."""
    from matplotlib.figure import Figure as Canvas

    with _settings():
        canvas = Canvas(figsize=(WIDTH, _height(panel)), layout="constrained")
        _draw(canvas.subplots(), panel, limits)
        file = io.StringIO()
        canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


def write_figures(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Write each figure as ``KEY.pdf`` and ``KEY.svg``, and return the files."""
    found = []
    for figure in figures:
        for ending, drawing in _whole(figure).items():
            path = folder / f"{figure.key}.{ending}"
            write_atomic(path, drawing)
            found.append(path)
    return found


def shared_limits(figure: Figure) -> Limits:
    """Return the y limits of panels that measure the same along it."""
    if any(panel.rows or panel.y.scale != "linear" for panel in figure.panels):
        return None
    points = [x for panel in figure.panels for one in panel.series for x in one.points]
    levels = [panel.level for panel in figure.panels if panel.level is not None]
    values = [y for at in (*points, *levels) for y in (at.y, at.low, at.high)]
    known = [y for y in values if y is not None]
    known += [0.0] if any(panel.zero for panel in figure.panels) else []
    low, high = min(known), max(known)
    room = 0.05 * (high - low) or 0.1
    return low - room, high + room


def _whole(figure: Figure) -> dict[str, bytes]:
    """Draw all panels of a figure, and its legend below; return it by format."""
    with _settings():
        canvas = drawn(figure)
        files = {"pdf": ("CreationDate", io.BytesIO()), "svg": ("Date", io.BytesIO())}
        for ending, (date, file) in files.items():
            canvas.savefig(file, format=ending, metadata={date: None})
    return {ending: file.getvalue() for ending, (_, file) in files.items()}


def drawn(figure: Figure) -> Canvas:
    """Draw all panels of a figure, and its legend below: nothing reaches over edges."""
    from matplotlib.figure import Figure as Canvas

    columns = min(COLUMNS, len(figure.panels))
    lines = -(-len(figure.panels) // columns)
    size = WIDTH * columns, max(map(_height, figure.panels)) * lines
    canvas = Canvas(figsize=size, layout="constrained")
    places = list(canvas.subplots(lines, columns, squeeze=False).flat)
    for place, panel in zip(places, figure.panels, strict=False):
        _draw(place, panel, shared_limits(figure))
    for place in places[len(figure.panels) :]:
        place.set_visible(False)
    if figure.legend and figure.series:
        _legend(canvas, figure)
    return canvas


def _legend(canvas: Canvas, figure: Figure) -> None:
    """Write the legend in as many columns as fit, and make room for it."""
    shown = {str(x.get_label()): x for x in _handles(figure.series)}
    names = [textwrap.fill(name, LONGEST_SERIES) for name in shown]
    for columns in (3, 2, 1):
        legend = canvas.legend(
            [*shown.values()], names, loc="outside lower center", ncols=columns
        )
        box = legend.get_window_extent()
        if columns == 1 or box.width <= canvas.bbox.width:
            canvas.set_figheight(canvas.get_figheight() + box.height / canvas.dpi)
            return
        legend.remove()


@contextmanager
def _settings() -> Iterator[None]:
    import matplotlib

    settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, **_SETTINGS}
    with matplotlib.rc_context(settings):
        yield


def _height(panel: Panel) -> float:
    if not panel.rows:
        return HEIGHT
    lines = max(name.count("\n") + 1 for name in _names(panel))
    return max(1.1, 0.75 + ROW * lines * len(panel.rows))


def _names(panel: Panel) -> list[str]:
    return [textwrap.fill(_line_of(name), LONGEST) for name in panel.rows]


# --- a panel ------------------------------------------------------------------------


def _draw(axes: Axes, panel: Panel, limits: Limits) -> None:
    axes.set_title(_line_of(panel.title))
    for series in panel.series:
        _MARKS[series.mark](axes, series, _colour(series), bool(panel.rows))
    _scale(axes, panel, limits)
    across = axes.axvline if panel.rows else axes.axhline
    shade = axes.axvspan if panel.rows else axes.axhspan
    if panel.zero:
        across(0, color=MUTED, linewidth=0.6, zorder=1)
    if panel.band is not None:
        shade(*panel.band, color=SHADE, linewidth=0, zorder=0)
    if panel.level is not None:
        across(panel.level.y, color=COLOURS[1], linewidth=1.2)
        if panel.level.low is not None and panel.level.high is not None:
            shade(panel.level.low, panel.level.high, color=COLOURS[1], alpha=0.18, lw=0)


def _scale(axes: Axes, panel: Panel, limits: Limits) -> None:
    # The names of rows leave little below the axis of short panels.
    axes.set_xlabel(panel.x.label, loc="right" if panel.rows else "center")
    axes.set_ylabel(panel.y.label)
    for axis, shown in ((panel.x, axes.xaxis), (panel.y, axes.yaxis)):
        _ticks(axes, axis, shown)
    if panel.rows:
        axes.set_yticks(range(len(panel.rows)), _names(panel))
        axes.set_ylim(len(panel.rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
    else:
        axes.grid(visible=False, axis="x")
        if limits is not None:
            axes.set_ylim(*limits)


def _ticks(axes: Axes, axis: Axis, shown: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if axis.scale != "linear":
        rescale = {"x": axes.set_xscale, "y": axes.set_yscale}[shown.axis_name]
        rescale(axis.scale, **({"linthresh": SMALL} if axis.scale == "symlog" else {}))
        shown.set_minor_formatter(NullFormatter())
    elif axis.numbers == "whole":
        shown.set_major_locator(MaxNLocator("auto", integer=True))
    if axis.scale == "log":
        low, high = shown.get_view_interval()
        few = high < TWO_DECADES * low
        shown.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    if axis.numbers in _NUMBERS:
        write = _NUMBERS[axis.numbers]
        shown.set_major_formatter(FuncFormatter(lambda value, _: write(value)))


TWO_DECADES = 100.0
SMALL = 1e-6
"""A weight next to nothing, on an axis with weights of both signs."""
_NUMBERS: dict[Numbers, Callable[[float], str]] = {
    "share": lambda value: f"{100 * value:.6g} %",
    "flops": lambda value: f"{value:.0e}".replace("e+0", "e").replace("e+", "e"),
    "weight": lambda value: f"{value:.1g}".replace("e-0", "e-"),
}


def _line_of(name: str) -> str:
    return visible(name, line=True)


def _colour(series: Series) -> str:
    return COLOURS[series.colour % len(COLOURS)]


def _line(axes: Axes, series: Series, colour: str, lying: bool) -> None:
    x, y = [at.x for at in series.points], [at.y for at in series.points]
    marker = "o" if len(x) <= FEW else None
    axes.plot(
        x,
        y,
        color=colour,
        label=_line_of(series.name),
        linewidth=1.4,
        linestyle="--" if series.mark == "dashed" else "-",
        marker=marker,
        markersize=3,
    )
    known = [at for at in series.points if at.low is not None and at.high is not None]
    if known:
        along, _, low, high = zip(*known, strict=True)
        axes.fill_between(along, low, high, color=colour, alpha=0.11, linewidth=0)


FEW = 12
"""Up to how many points of a line are marked."""


def _dots(axes: Axes, series: Series, colour: str, lying: bool) -> None:
    x, y = [at.x for at in series.points], [at.y for at in series.points]
    axes.plot(
        x,
        y,
        "o",
        color=colour,
        label=_line_of(series.name),
        markersize=5 if lying else 3.2,
        markerfacecolor="none" if series.mark == "rings" else colour,
    )
    for at in series.points:
        if at.low is not None and at.high is not None:
            whisker = axes.hlines if lying else axes.vlines
            fixed = at.y if lying else at.x
            whisker(fixed, at.low, at.high, color=colour, linewidth=1.2)


def _bars(axes: Axes, series: Series, colour: str, lying: bool) -> None:
    axes.barh(
        [at.y for at in series.points],
        [at.x - (at.low or 0.0) for at in series.points],
        left=[at.low or 0.0 for at in series.points],
        color=colour,
        height=0.6,
        label=_line_of(series.name),
    )


_MARKS: dict[Mark, Callable[[Axes, Series, str, bool], None]] = {
    "line": _line,
    "dashed": _line,
    "dots": _dots,
    "rings": _dots,
    "bars": _bars,
}


def _handles(found: Sequence[Series]) -> Iterator[Any]:
    """Yield what a legend shows, drawn on axes of their own."""
    from matplotlib.figure import Figure as Canvas

    for series in found:
        axes = Canvas().subplots()
        lone = Series(series.name, [At(0, 0, 0)], series.colour, series.mark)
        _MARKS[series.mark](axes, lone, _colour(series), True)
        yield axes.get_legend_handles_labels()[0][0]
