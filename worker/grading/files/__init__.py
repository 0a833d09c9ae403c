"""Opening stored instances: their content and size are checked before a parser sees them."""

from worker.grading.files.checks import UnsafeInstance, check_digest
from worker.grading.files.opening import check_pixels, open_instance

__all__ = ["UnsafeInstance", "check_digest", "check_pixels", "open_instance"]
