"""Report stage: the DICOM objects sent to the PACS for a study, graded or not.

A graded study gets an SR, pictures (Secondary Capture) and, on request, a Parametric Map; a study
that was not graded gets an SR with the reason. Only this package uses highdicom.
"""

from worker.grading.stages.report.build import build_not_graded_report, build_report
from worker.grading.stages.report.text import render_text

__all__ = ["build_not_graded_report", "build_report", "render_text"]
