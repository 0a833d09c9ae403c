"""Text that came from outside, made safe to show on a terminal or to write into a log."""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 4000
"""Characters of a text that are shown unless the caller says otherwise."""

_UNPRINTABLE: Final = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0, DEL and C1: terminals obey them (ECMA-48)
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # reorder what is shown (Unicode UAX #9)
    "\u2028\u2029"  # line and paragraph separator
    "\ud800-\udfff"  # surrogates, which cannot be encoded
    "]"
)


def printable(text: str, longest: int = LONGEST) -> str:
    r"""Replace what a terminal would obey, and what would end or reorder the line, by its code.

    Every other character stays, among them umlauts and Chinese, Japanese and Korean.

    Parameters
    ----------
    text : str
        For example an AE title, a file name or a value of a data element.
    longest : int
        A longer text is cut off, and its length stated.

    Returns
    -------
    str
        One line. ESC becomes ``\x1b``, a line feed ``\n``, a right-to-left override ``\u202e``.
    """
    shown = _UNPRINTABLE.sub(
        lambda match: match[0].encode("unicode_escape").decode(), text[:longest]
    )
    return shown if len(text) <= longest else f"{shown}… ({len(text)} characters)"


def printable_lines(text: str) -> str:
    """Make each line of a text printable, see `printable`; line feeds stay."""
    return "\n".join(printable(line) for line in text.split("\n"))


def column_text(text: str) -> str:
    """Return what a text column keeps of a value: printable characters, at most 64.

    Two values of one attribute are compared in this form, see `db.grading.identity`.
    """
    return "".join(character for character in text if character.isprintable()).strip()[:64]
