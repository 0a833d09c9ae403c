"""Rules of series selection: the reasons against grading a series.

The kind of image is determined by timing, pulse sequence and geometry, never by Series Description
or Body Part Examined, which are wrong or absent in real data. If several reasons apply, the verdict
has the first one in `PRECEDENCE`; the others are listed in its detail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.reasons import Reason
from worker.grading.files.checks import MAX_VOXELS
from worker.grading.stages.selection.geometry import (
    Finding,
    anatomical_planes,
    check_geometry,
    lacks_geometry,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from worker.grading.stages.selection.headers import Frame

MIN_ECHO_TIME_MS: Final = 60.0
MIN_REPETITION_TIME_MS: Final = 2000.0
MAX_ECHO_TIME_SPREAD_MS: Final = 1.0
LOCALIZER_THICKNESS_MM: Final = 10.0
"""Slices this thick are for planning, not for diagnosis."""

PRECEDENCE: Final = (
    # The kind of series.
    Reason.NO_IMAGES,
    Reason.NOT_MR,
    Reason.DERIVED,
    Reason.LOCALIZER,
    Reason.MOSAIC,
    Reason.PHASE,
    Reason.DIFFUSION,
    Reason.ECHO_PLANAR,
    Reason.INVERSION_RECOVERY,
    Reason.GRADIENT_ECHO,
    Reason.NOT_T2_WEIGHTED,
    # From here on the series may be a T2-weighted spin echo with faulty geometry or storage.
    Reason.UNREADABLE,
    Reason.MISSING_GEOMETRY,
    Reason.MIXED_ORIENTATION,
    Reason.NOT_AXIAL,
    Reason.SEVERAL_ECHOES,
    Reason.GANTRY_TILT,
    Reason.DUPLICATE_POSITIONS,
    Reason.MISSING_SLICE,
    Reason.IRREGULAR_SPACING,
    Reason.INCONSISTENT_MATRIX,
    Reason.INCONSISTENT_RESCALE,
    Reason.SLICES_TOO_THICK,
    Reason.PIXELS_TOO_COARSE,
    Reason.TOO_FEW_SLICES,
)
"""Order of the checks; the first one that fails gives the verdict its reason."""


def rank(reason: Reason) -> int:
    """Position of a reason in `PRECEDENCE`."""
    return PRECEDENCE.index(reason)


def is_near_miss(reason: Reason) -> bool:
    """Whether a series with this verdict may be the T2 series that was to be graded."""
    return rank(reason) >= rank(Reason.UNREADABLE)


def judge(frames: Sequence[Frame], n_files: int, problems: Sequence[str]) -> list[Finding]:
    """Find every reason against grading a series, in the order of `PRECEDENCE`.

    Parameters
    ----------
    frames : sequence of Frame
        All slices of the series that could be read.
    n_files : int
        Files in the series.
    problems : sequence of str
        One for each file that could not be read.

    Returns
    -------
    list of (Reason, str)
        Empty if the series can be graded.
    """
    return sorted(_findings(frames, n_files, problems), key=lambda finding: rank(finding[0]))


def _findings(frames: Sequence[Frame], n_files: int, problems: Sequence[str]) -> Iterator[Finding]:
    if problems:
        yield Reason.UNREADABLE, f"{len(problems)} of {n_files} files, first: {problems[0]}"
    if not frames:
        if not problems:
            yield Reason.NO_IMAGES, f"{n_files} instances without pixels"
        return
    other = [frame for frame in frames if not frame.is_mr]
    if other:
        yield Reason.NOT_MR, f"SOP class {other[0].sop_class_uid} in {len(other)} of {len(frames)}"
    else:
        yield from _check_kind(frames)
        yield from _check_contrast(frames)
        yield from _check_storage(frames)
    yield from check_geometry(frames)


def _share(count: int, frames: Sequence[Frame]) -> str:
    return f"{count} of {len(frames)} images"


def _check_kind(frames: Sequence[Frame]) -> Iterator[Finding]:
    """Yield reasons against anything but original magnitude images of one stack."""
    not_original = sum(
        frame.image_type[:1] != ("ORIGINAL",)
        or frame.image_type[1:2] != ("PRIMARY",)
        or frame.samples_per_pixel != 1
        for frame in frames
    )
    if not_original:
        yield Reason.DERIVED, f"{_share(not_original, frames)} not original and primary"
    stated = sum("LOCALIZER" in frame.image_type for frame in frames)
    thick = max(frame.thickness_mm or 0.0 for frame in frames)
    planes = set[int]() if any(map(lacks_geometry, frames)) else anatomical_planes(frames)
    if stated:
        yield Reason.LOCALIZER, f"{_share(stated, frames)} are localizers by their image type"
    elif len(planes) == 3:
        yield Reason.LOCALIZER, f"axial, coronal and sagittal slices among {len(frames)}"
    elif thick >= LOCALIZER_THICKNESS_MM:
        yield Reason.LOCALIZER, f"slices {thick:.0f} mm thick"
    for reason, count in (
        (Reason.MOSAIC, sum("MOSAIC" in frame.image_type for frame in frames)),
        (Reason.PHASE, sum(not frame.magnitude for frame in frames)),
        (Reason.DIFFUSION, sum(frame.diffusion for frame in frames)),
        (Reason.ECHO_PLANAR, sum(frame.echo_planar for frame in frames)),
        (Reason.INVERSION_RECOVERY, sum(frame.inversion for frame in frames)),
    ):
        if count:
            yield reason, _share(count, frames)


def _check_contrast(frames: Sequence[Frame]) -> Iterator[Finding]:
    """Yield reasons against anything but a T2-weighted spin echo with one echo."""
    not_spin = sum(not frame.spin_echo for frame in frames)
    if not_spin:
        yield Reason.GRADIENT_ECHO, f"{_share(not_spin, frames)} not stated to be spin echo"
    echo_times = [frame.echo_time_ms for frame in frames if frame.echo_time_ms is not None]
    repetitions = [t for frame in frames if (t := frame.repetition_time_ms) is not None]
    if min(len(echo_times), len(repetitions)) < len(frames):
        yield Reason.NOT_T2_WEIGHTED, "echo or repetition time missing"
    # The longest echo: a series with a T2 and a proton-density echo is reported below.
    elif max(echo_times) < MIN_ECHO_TIME_MS or min(repetitions) < MIN_REPETITION_TIME_MS:
        yield Reason.NOT_T2_WEIGHTED, f"TE {max(echo_times):g} ms, TR {min(repetitions):g} ms"
    numbers = {frame.echo_number for frame in frames}
    shortest, longest = min(echo_times, default=0.0), max(echo_times, default=0.0)
    if len(numbers) > 1 or longest - shortest > MAX_ECHO_TIME_SPREAD_MS:
        detail = f"TE {shortest:g} to {longest:g} ms, {len(numbers)} echo numbers"
        yield Reason.SEVERAL_ECHOES, detail


def _check_storage(frames: Sequence[Frame]) -> Iterator[Finding]:
    """Yield reasons against slices that differ in matrix, pixel spacing or rescale."""
    matrices = {(frame.matrix, frame.photometric) for frame in frames}
    spacings = [frame.pixel_spacing_mm for frame in frames if frame.pixel_spacing_mm]
    uneven = any(max(axis) - min(axis) > 0.001 * max(axis) for axis in zip(*spacings, strict=True))
    if len(matrices) > 1 or uneven:
        sizes = " and ".join(sorted({f"{rows}×{columns}" for (rows, columns), _ in matrices})[:3])
        yield Reason.INCONSISTENT_MATRIX, f"{sizes} pixels{', of several sizes' * uneven}"
    voxels = len(frames) * max(rows * columns for (rows, columns), _ in matrices)
    if not 0 < voxels <= MAX_VOXELS:
        yield Reason.INCONSISTENT_MATRIX, f"{voxels} voxels are no scan of a head"
    rescales = {frame.rescale for frame in frames}
    if len(rescales) > 1:
        yield Reason.INCONSISTENT_RESCALE, f"{len(rescales)} pairs of rescale slope and intercept"
    elif next(iter(rescales))[0] <= 0:
        yield Reason.INCONSISTENT_RESCALE, "rescale slope is not positive"
