"""Reporting: from a grade, or from why there is none, to the DICOM objects for the PACS.

``Grade + SaliencyMap → Report``, ``NotGradedStudy → Report``. This package is the only owner of
highdicom.
"""

from worker.grading.stages.report.build import build_not_graded_report, build_report
from worker.grading.stages.report.measurement_report import SRClass
from worker.grading.stages.report.text import render_text

__all__ = ["SRClass", "build_not_graded_report", "build_report", "render_text"]
