"""Make drawings part of a page: its colours, its fonts, and no styles of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from harness.report.figures.drawing import COLOURS, GRID, INK, MUTED, SHADE

_SVG, _LINK = "http://www.w3.org/2000/svg", "{http://www.w3.org/1999/xlink}href"
_THEME = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    SHADE: "var(--shade)",
    **{colour: f"var(--c{number})" for number, colour in enumerate(COLOURS)},
}
_DROPPED = {f"{{{_SVG}}}style", f"{{{_SVG}}}metadata"}
_SIZE = re.compile(r"(bold )?([\d.]+)px")
_REFERENCE = re.compile(r"(?:url\()?#([\w-]+)\)?$")


def inlined(drawing: str, prefix: str, description: str) -> str:
    """Return an SVG for a page, described in words for those who do not see it.

    Colours are those of the page's theme, and styles are attributes, which a strict
    policy permits. `prefix` keeps its ids apart from those of the page's others.
    """
    # What matplotlib has just written is no foreign document.
    root = ET.fromstring(drawing)  # noqa: S314
    for parent in list(root.iter()):
        for child in [x for x in parent if x.tag in _DROPPED]:
            parent.remove(child)
    used = {name for node in root.iter() for name in _references(node)}
    for node in root.iter():
        node.tag = node.tag.removeprefix(f"{{{_SVG}}}")
        node.attrib = dict(_attributes(node, used, prefix))
    box = root.get("viewBox", "0 0 1 1")
    root.attrib = {"viewBox": box, "role": "img", "aria-label": description}
    root.set("class", "plot")
    return ET.tostring(root, encoding="unicode")


def _references(node: ET.Element) -> Iterator[str]:
    for value in node.attrib.values():
        found = _REFERENCE.match(value)
        if found:
            yield found[1]


def _attributes(
    node: ET.Element, used: set[str], prefix: str
) -> Iterator[tuple[str, str]]:
    for name, value in node.attrib.items():
        if name == "style":
            yield from _declared(value)
        elif name == "id" and value in used:
            yield "id", f"{prefix}-{value}"
        elif _REFERENCE.match(value):
            # "#0072b2" as a colour never stands outside a style.
            yield name.replace(_LINK, "href"), value.replace("#", f"#{prefix}-")
        elif name != "id":
            yield name, value


def _declared(style: str) -> Iterator[tuple[str, str]]:
    """Yield the attributes that say what a style does."""
    for declaration in filter(None, style.split(";")):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            bold, size = _SIZE.search(value).groups()  # type: ignore[union-attr]
            yield "font-size", size
            if bold:
                yield "font-weight", "bold"
        else:
            yield name, _THEME.get(value.lower(), value)
