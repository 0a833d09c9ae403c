"""Markdown for model cards and reports: tables and wrapped paragraphs."""

from __future__ import annotations

import re
from textwrap import fill
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WIDTH: Final = 100
_ITEM: Final = re.compile(r"\n(?=- |\d+\. )")
_CODE: Final = re.compile(r"`[^`]+`")
_MARKER: Final = re.compile(r"- |\d+\. |")


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Format a table; every cell is converted by `str`."""
    lines = [_row(header), "|" + "---|" * len(header), *(_row(cells) for cells in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[object]) -> str:
    return "|" + "".join(f" {cell} |" if str(cell) else " |" for cell in cells)


def wrap(document: str) -> str:
    """Wrap paragraphs and list items; headings, quotes, tables, images and code are not broken."""
    blocks = document.strip().split("\n\n")
    return "\n\n".join(_wrap_block(block) for block in blocks) + "\n"


def _wrap_block(block: str) -> str:
    if block.startswith(("#", ">", "|", "![")):
        return block
    return "\n".join(_wrap_item(item) for item in _ITEM.split(block))


def _wrap_item(item: str) -> str:
    marker = _MARKER.match(item)
    indent = " " * (marker.end() if marker else 0)
    text = _CODE.sub(lambda span: span[0].replace(" ", "\0"), " ".join(item.split()))
    wrapped = fill(
        text,
        _WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return wrapped.replace("\0", " ")
