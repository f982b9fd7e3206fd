"""Words in LaTeX: nothing in them is markup, and how wide they are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from tabulate import LATEX_ESCAPE_RULES

_SPECIAL = {
    **LATEX_ESCAPE_RULES,
    "|": r"\textbar{}",  # which the oldest fonts of TeX print as a dash
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "→": r"$\to$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "§": r"\S{}",
    "[": "{[}",  # behind \\, it would begin an argument
    "*": "{*}",
}
_GREEK = re.compile("GREEK (SMALL|CAPITAL) LETTER ([A-Z]+)")
_CAPITALS = "gamma delta theta lambda xi pi sigma upsilon phi psi omega"
_PERCENT = re.compile(r"(\d) (?=\\%)")
_BREAKS = re.compile(r"(?<=[_./:])(?=[^\W\d])")
"""Where a line may end, besides at the spaces and hyphens that TeX knows."""
ENDS = re.compile(rf"(?<=[- ])|{_BREAKS.pattern}")
"""All places where a line may end."""
_POWER = re.compile(r"(?<![\w.])\d+\.\d+e-?\d+(?!\w)")
_DELTA = re.compile(r"(?<![\w-])dL(?![\w-])")


def escape(text: str) -> str:
    """Return a text with what LaTeX would read as markup spelt as it is written.

    Greek letters become formulas, so that pdfLaTeX knows them.
    """
    made = "".join(_SPECIAL.get(x) or _greek(x) or x for x in text)
    return made.replace("--", "-{}-")  # two hyphens would be a dash


def words(text: str) -> str:
    """Return words of the report itself: dL and powers set, each % at its number."""
    made = r"$\Delta L$".join(escape(part) for part in _DELTA.split(text))
    return _POWER.sub(r"\\num{\g<0>}", _PERCENT.sub(r"\1\\,", made))


def breakable(text: str, spell: Callable[[str], str]) -> str:
    """Return a text, each part as `spell` spells it, whose names may be broken."""
    return r"\allowbreak{}".join(map(spell, _BREAKS.split(text)))


def _greek(character: str) -> str | None:
    found = _GREEK.fullmatch(unicodedata.name(character, ""))
    if found is None:
        return None
    name = found[2].lower().replace("lamda", "lambda")
    if found[1] == "SMALL":
        return None if name == "omicron" else f"$\\{name}$"
    return f"$\\{name.title()}$" if name in _CAPITALS.split() else None


# --- width --------------------------------------------------------------------------

_CLASSES = {
    0.28: "il.,:;!'`[]|",
    0.40: 'fjrst()I-{}" ',
    0.45: "cez",
    0.50: "ago*/^0123456789",
    0.56: "bdhnpqukvxyJS",
    0.85: "mw%",
    1.04: "MW",
}
_EMS = {character: ems for ems, listed in _CLASSES.items() for character in listed}
_OTHER_EMS = 0.79
"""Of capitals, signs and all else; wider ones, of other scripts, are not known."""
_SMALL = 1.07
"""How much wider, for their size, the letters of small sizes are."""
FONT_PT = 8.0
"""The size of the letters in tables."""


def points(text: str) -> float:
    """Return how wide a text is in a table, in points, or somewhat more.

    In Computer Modern: the fonts of conferences are narrower.
    """
    return FONT_PT * _SMALL * sum(_EMS.get(x, _OTHER_EMS) for x in text)
