"""Severity: the input of the severity model, and its saliency in the scan.

`window` prepares the model's input from the scan; `saliency` maps its Grad-CAM back to the scan.
"""

from worker.grading.stages.severity.saliency import map_saliency
from worker.grading.stages.severity.window import prepare_severity

__all__ = ["map_saliency", "prepare_severity"]
