"""Prints one of this node's structured reports as text.

``python -m worker.commands.read_report FILE``
"""

from __future__ import annotations

import sys

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from core.text import printable, printable_lines
from worker.grading.stages.report import render_text


def main() -> None:
    """Run the command."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m worker.commands.read_report FILE")
    name = printable(sys.argv[1])
    try:
        dataset = dcmread(sys.argv[1])
    except (OSError, InvalidDicomError) as error:
        sys.exit(f"{name} cannot be read as DICOM ({type(error).__name__}).")
    if dataset.get("Modality") != "SR":
        sys.exit(f"{name} is not a structured report.")
    sys.stdout.write(printable_lines(render_text(dataset)))


if __name__ == "__main__":
    main()
