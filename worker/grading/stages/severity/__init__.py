"""Fourth and sixth step of the flow: what the severity model sees, and where it looked.

`window` makes the model's input out of the scan; `saliency` takes its Grad-CAM back to the scan.
"""

from worker.grading.stages.severity.saliency import map_saliency
from worker.grading.stages.severity.window import prepare_severity

__all__ = ["map_saliency", "prepare_severity"]
