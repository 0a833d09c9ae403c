"""Prints one of this node's structured reports as text.

``python -m worker.commands.read_report FILE``
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydicom import dcmread

from core.text import printable, printable_lines
from worker.grading.stages.report import render_text


class NotAReport(Exception):
    """The file is no structured report of this node; the message says what is wrong."""


def read_report(path: Path) -> str:
    """Return a report as text.

    Raises
    ------
    NotAReport
        The message contains no values of the file.
    """
    try:
        dataset = dcmread(path)
        modality = dataset.get("Modality")
    except Exception as error:  # noqa: BLE001 - pydicom may raise anything on foreign bytes
        raise NotAReport(f"cannot be read as DICOM ({type(error).__name__})") from None
    if modality != "SR":
        raise NotAReport("is not a structured report")
    try:
        return printable_lines(render_text(dataset))
    except Exception as error:  # noqa: BLE001 - an SR of another kind, or a damaged one
        raise NotAReport(f"is not a report of this node ({type(error).__name__})") from None


def main() -> None:
    """Run the command."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m worker.commands.read_report FILE")
    try:
        text = read_report(Path(sys.argv[1]))
    except NotAReport as error:
        sys.exit(f"{printable(sys.argv[1])} {error}.")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
