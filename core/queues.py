"""Names of the broker's queues; a worker takes tasks from both unless ``--queues`` names one."""

from __future__ import annotations

from typing import Final

GRADING: Final = "epvs"
DELIVERY: Final = "epvs-delivery"
