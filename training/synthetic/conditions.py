"""Simulated conditions: quality of the scans, pose of the head, and structures that mimic EPVS.

Networks are trained under `STANDARD` and tested under `HARSH`, whose ranges exceed those of
training in every respect. Scores under the training conditions would be too optimistic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from training.synthetic.pose import PoseRange

Range = tuple[float, float]


@dataclass(frozen=True)
class Conditions:
    """Ranges from which the parameters of each scan are drawn.

    Attributes
    ----------
    noise : tuple of float
        Standard deviation in each channel, relative to CSF; uniform on a logarithmic scale.
    bias : tuple of float
        Maximum of the natural logarithm of the sensitivity.
    sampled : tuple of float
        Share of the phase-encoding lines that are acquired; fewer lines cause more ringing.
    motion_mm : tuple of float
        Standard deviation of the head's position between segments of k-space, if it moved.
    moved : float
        Share of the scans in which the head moved.
    lacunes, hyperintensities, flow_voids : float
        Mean number per scan.
    epvs_signal : tuple of float
        Signal inside EPVS, relative to CSF.
    pose : PoseRange
        Size, shape and position of the head.
    shift_mm, oblique_deg : float
        Largest offset of the slices from the centre of the head, and largest tilt.
    """

    name: str
    noise: Range = (0.003, 0.04)
    bias: Range = (0.1, 0.4)
    sampled: Range = (0.65, 1.0)
    motion_mm: Range = (0.1, 0.5)
    moved: float = 0.33
    lacunes: float = 0.5
    hyperintensities: float = 6.0
    flow_voids: float = 5.0
    epvs_signal: Range = (0.9, 1.0)
    pose: PoseRange = field(default_factory=PoseRange)
    shift_mm: float = 8.0
    oblique_deg: float = 6.0


STANDARD: Final = Conditions("standard")
"""Typical clinical quality."""
HARSH: Final = Conditions(
    "harsh",
    noise=(0.008, 0.05),
    bias=(0.2, 0.6),
    sampled=(0.55, 0.9),
    motion_mm=(0.2, 0.6),
    moved=0.6,
    lacunes=1.2,
    hyperintensities=10.0,
    flow_voids=8.0,
    epvs_signal=(0.8, 1.0),
    pose=PoseRange(rotation_deg=16.0, shift_mm=18.0, scale=0.1, warp_mm=5.0),
    shift_mm=12.0,
    oblique_deg=9.0,
)
"""Poor but readable scans of patients who moved, with more disease."""
CONDITIONS: Final = {conditions.name: conditions for conditions in (STANDARD, HARSH)}
