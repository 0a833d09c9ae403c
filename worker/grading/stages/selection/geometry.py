"""Geometry checks of a series: whether its slices form one regular axial stack.

Positions and directions are in patient space (LPS, mm; PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from worker.grading.stages.selection.headers import Frame

MAX_AXIAL_TILT_DEG: Final = 25.0
MAX_SHEAR_DEG: Final = 0.5
"""0.5° displaces the top of an 80 mm stack by 0.7 mm; header rounding stays below 0.05°."""
MAX_ORIENTATION_DIFFERENCE: Final = 0.002
"""Length of the difference of two direction vectors: 0.1°."""
MAX_OFF_LINE_MM: Final = 0.5
MIN_GAP_MM: Final = 0.1
"""Slices closer than this lie at the same position."""
GAP_TOLERANCE: Final = 0.05
"""Share of the slice spacing by which one gap may differ; never below `MIN_GAP_MM`."""
MAX_SLICE_SPACING_MM: Final = 7.0
MAX_PIXEL_SPACING_MM: Final = 1.2
MIN_PIXEL_SPACING_MM: Final = 0.05
MIN_SLICES: Final = 16
MIN_COVERAGE_MM: Final = 80.0
MAX_POSITION_MM: Final = 10_000.0
ROUNDING_MM: Final = 0.01
"""Tolerance of the limits: positions are decimal strings."""

# A reason against grading a series, with its figures.
Finding = tuple[Reason, str]
Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stack:
    """Frames of one orientation, sorted from inferior to superior."""

    frames: tuple[Frame, ...]
    normal: Vector
    positions_mm: Vector
    """shape (n, 3)"""

    @property
    def gaps_mm(self) -> Vector:
        """Distances between neighbours along the normal; shape (n - 1,)."""
        return np.asarray(np.diff(self.positions_mm @ self.normal))

    @property
    def spacing_mm(self) -> float:
        """Mean distance between neighbours along the normal; 0 for a single slice."""
        return float(self.gaps_mm.mean()) if len(self.frames) > 1 else 0.0


def lacks_geometry(frame: Frame) -> bool:
    """Whether position, orientation or pixel spacing is missing or implausible."""
    if frame.orientation is None or frame.position_mm is None or frame.pixel_spacing_mm is None:
        return True
    row, column = np.array(frame.orientation[:3]), np.array(frame.orientation[3:])
    unit = max(abs(np.linalg.norm(row) - 1), abs(np.linalg.norm(column) - 1)) < 0.01
    plausible = (
        max(map(abs, frame.position_mm)) <= MAX_POSITION_MM
        and min(frame.pixel_spacing_mm) >= MIN_PIXEL_SPACING_MM
        and max(frame.pixel_spacing_mm) <= MAX_POSITION_MM
    )
    return not (unit and abs(row @ column) < 0.01 and plausible)


def normal_of(frame: Frame) -> Vector:
    """Return the unit normal of a slice, pointing towards the head (+z)."""
    orientation = np.array(frame.orientation)
    normal = np.cross(orientation[:3], orientation[3:])
    normal /= np.linalg.norm(normal)
    return np.asarray(-normal if normal[2] < 0 else normal)


def anatomical_planes(frames: Sequence[Frame]) -> set[int]:
    """Patient axes (0 sagittal, 1 coronal, 2 axial) to which the slices are closest."""
    return {int(np.argmax(np.abs(normal_of(frame)))) for frame in frames}


def build_stack(frames: Sequence[Frame]) -> Stack | None:
    """Sort the slices along their common normal; None if there is none."""
    if not frames or any(map(lacks_geometry, frames)):
        return None
    orientations = np.array([frame.orientation for frame in frames])
    difference = np.abs(orientations - orientations[0]).reshape(-1, 2, 3)
    if np.linalg.norm(difference, axis=2).max() > MAX_ORIENTATION_DIFFERENCE:
        return None
    normal = normal_of(frames[0])
    positions = np.array([frame.position_mm for frame in frames])
    order = np.argsort(positions @ normal, kind="stable")
    return Stack(tuple(frames[k] for k in order), normal, positions[order])


def check_geometry(frames: Sequence[Frame]) -> Iterator[Finding]:
    """Yield every geometric reason against grading these frames."""
    lacking = sum(map(lacks_geometry, frames))
    if lacking:
        yield (
            Reason.MISSING_GEOMETRY,
            f"no usable position, orientation or pixel spacing in {lacking} of {len(frames)}",
        )
        return
    stack = build_stack(frames)
    if stack is None:
        different = {tuple(round(x, 2) for x in frame.orientation or ()) for frame in frames}
        yield Reason.MIXED_ORIENTATION, f"{len(different)} orientations in {len(frames)} slices"
        return
    tilt = math.degrees(math.acos(min(1.0, float(stack.normal[2]))))
    if tilt > MAX_AXIAL_TILT_DEG:
        yield Reason.NOT_AXIAL, f"normal {tilt:.0f}° from the head axis"
    pixel = max(max(frame.pixel_spacing_mm or (0.0,)) for frame in frames)
    if pixel > MAX_PIXEL_SPACING_MM + ROUNDING_MM:
        yield Reason.PIXELS_TOO_COARSE, f"pixels of {pixel:.2f} mm"
    if len(frames) > 1:
        yield from _check_gaps(stack)
    coverage = len(frames) * stack.spacing_mm
    if len(frames) < MIN_SLICES and coverage < MIN_COVERAGE_MM:
        yield Reason.TOO_FEW_SLICES, f"{len(frames)} slices over {coverage:.0f} mm"


def _check_gaps(stack: Stack) -> Iterator[Finding]:
    gaps = stack.gaps_mm
    duplicates = int((gaps < MIN_GAP_MM).sum())
    if duplicates:
        yield (
            Reason.DUPLICATE_POSITIONS,
            f"{duplicates} of {len(stack.frames)} slices at a position that is already taken",
        )
    distinct = np.flatnonzero(gaps >= MIN_GAP_MM)
    if not distinct.size:
        return
    yield from _check_line(stack)
    # The lower median: with few slices the upper one may be the faulty gap.
    usual = float(np.sort(gaps[distinct])[(distinct.size - 1) // 2])
    if usual > MAX_SLICE_SPACING_MM + ROUNDING_MM:
        yield Reason.SLICES_TOO_THICK, f"slices {usual:.1f} mm apart"
    tolerance = max(MIN_GAP_MM, GAP_TOLERANCE * usual)
    found: set[Reason] = set()
    for k in distinct[np.abs(gaps[distinct] - usual) > tolerance]:
        multiple = gaps[k] / usual
        whole = multiple > 1.5 and abs(multiple - round(multiple)) <= 2 * GAP_TOLERANCE
        reason = Reason.MISSING_SLICE if whole else Reason.IRREGULAR_SPACING
        if reason not in found:  # the first of each kind is sufficient
            found.add(reason)
            yield reason, f"gap of {gaps[k]:.2f} mm after slice {k + 1} (others {usual:.2f} mm)"


def _check_line(stack: Stack) -> Iterator[Finding]:
    """Yield a reason if the slices are not stacked along their normal, on a straight line."""
    steps = stack.positions_mm - stack.positions_mm[0]
    heights = steps @ stack.normal
    lateral = steps - np.outer(heights, stack.normal)
    shear = math.degrees(math.atan2(float(np.linalg.norm(lateral[-1])), float(heights[-1])))
    if shear > MAX_SHEAR_DEG:
        yield Reason.GANTRY_TILT, f"slices stacked {shear:.1f}° off their normal"
    off_line = np.linalg.norm(lateral - np.outer(heights / heights[-1], lateral[-1]), axis=1).max()
    if off_line > MAX_OFF_LINE_MM:
        yield Reason.IRREGULAR_SPACING, f"slices up to {off_line:.1f} mm off a straight line"
