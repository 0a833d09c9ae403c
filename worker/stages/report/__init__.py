"""Reporting: from a grade to the DICOM objects that go back to the PACS.

``Grade + SaliencyMap → Report``. This package is the only owner of highdicom.
"""

from worker.stages.report.build import build_report
from worker.stages.report.text import render_text

__all__ = ["build_report", "render_text"]
