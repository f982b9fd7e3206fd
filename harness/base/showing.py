"""Text of others, made fit to be shown: nothing in it that a reader does not see.

Names, exceptions and adversarial prompts may hold escape codes, which drive a terminal,
and controls of direction, which reorder a line. All that the harness prints, or writes
into a report, goes through `visible`.
"""

from __future__ import annotations

import json
import re
import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what acts in place of being seen: controls, format
characters, halves of surrogate pairs, separators of lines and paragraphs."""
_SUSPECT = re.compile(r"[^\x20-\x7e\n\t]")
_SUSPECT_IN_A_LINE = re.compile(r"[^\x20-\x7e]")
_SHORT = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}


def visible(text: object, *, line: bool = False) -> str:
    r"""Return a text with what cannot be seen spelt out, as ``\x1b`` or ``<U+202E>``.

    Newlines and tabs stay; where the text is to be one `line`, they are spelt out too.
    """
    suspect = _SUSPECT_IN_A_LINE if line else _SUSPECT
    return suspect.sub(_spelt, str(text))


def visible_json(text: str) -> str:
    r"""Return JSON that says the same, with what cannot be seen spelt as ``\u202e``."""
    return _SUSPECT.sub(_spelt_in_json, text)


def _spelt(match: re.Match[str]) -> str:
    character = match[0]
    if unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    plain = rf"\x{code:02x}" if code < 0x100 else f"<U+{code:04X}>"
    return _SHORT.get(character, plain)


def _spelt_in_json(match: re.Match[str]) -> str:
    hidden = unicodedata.category(match[0]) in _HIDDEN
    return json.dumps(match[0])[1:-1] if hidden else match[0]
