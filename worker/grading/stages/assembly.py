"""Assembly: `SelectedSeries` → `Volume`, one float32 image in patient space."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import DeflatedExplicitVRLittleEndian

from core.errors import Failed
from core.reasons import Reason
from worker.grading.errors import NotGradable
from worker.grading.records import Float32Array, SelectedSeries, Volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

_HEADER: Final = [
    "PhotometricInterpretation",
    "RescaleSlope",
    "RescaleIntercept",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]


def assemble(series: SelectedSeries) -> Volume:
    """Decode the slices of a series into one image.

    Rescale slope and intercept are applied slice by slice (PS3.3 C.11.1); MONOCHROME1 is inverted,
    so that bright is always high. The slice axis of the image is the vector between the outermost
    slice positions, not the cross product of the in-plane directions, so a left-handed stack keeps
    its handedness.

    Raises
    ------
    NotGradable
        `Reason.UNDECODABLE_PIXELS`, with the slice number and the transfer syntax UID.
    Failed
        A stored file is missing.
    """
    by_path: dict[Path, list[int]] = defaultdict(list)
    for index, location in enumerate(series.slices):
        by_path[location.path].append(index)

    voxels: Float32Array | None = None
    inverted = False
    for path, indices in by_path.items():
        try:
            file = path.open("rb")
        except OSError as error:
            raise Failed(
                "spool-unreadable", f"Stored instance cannot be opened ({type(error).__name__})."
            ) from error
        with file:
            for index, values, is_inverted in _decode(file, series, indices):
                if voxels is None:
                    voxels = np.empty((len(series.slices), *values.shape), np.float32)
                voxels[index] = values
                inverted = is_inverted
    if voxels is None:
        raise NotGradable(Reason.NO_IMAGES, "the series holds no slices")
    if inverted:
        voxels = voxels.max() + voxels.min() - voxels
    return Volume(_image(voxels, series), series)


def _decode(
    file: BinaryIO, series: SelectedSeries, indices: Sequence[int]
) -> Iterator[tuple[int, Float32Array, bool]]:
    """Yield (slice index, rescaled pixels, whether MONOCHROME1) for the slices in one file."""
    index, syntax = indices[0], "unknown"
    try:
        header = dcmread(file, stop_before_pixels=True, force=True, specific_tags=_HEADER)
        syntax = str(header.file_meta.get("TransferSyntaxUID", syntax))[:64]
        frames = _frames(file, syntax, [series.slices[k].frame_number for k in indices])
        for index in indices:
            slope, intercept = _rescale(header, series.slices[index].frame_number)
            values = next(frames).astype(np.float32) * slope + intercept
            _check_values(values)
            yield index, values, header.get("PhotometricInterpretation") == "MONOCHROME1"
    except MemoryError:
        raise
    except Exception as error:
        # The bytes may be hostile, and five third-party decoders read them: any exception is a
        # finding about this slice, and the study ends with a reason instead of retries.
        raise _undecodable(series, index, syntax, type(error).__name__) from error


def _check_values(values: Float32Array) -> None:
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError("not one finite value a pixel")


def _frames(
    file: BinaryIO, syntax: str, numbers: Sequence[int | None]
) -> Iterator[NDArray[np.generic]]:
    file.seek(0)
    source: BinaryIO | Dataset = file
    if syntax == DeflatedExplicitVRLittleEndian:
        source = dcmread(file)  # frames can only be located after inflating the whole data set
    wanted = None if numbers[0] is None else [number - 1 for number in numbers if number]
    return iter_pixels(source, raw=True, indices=wanted)


def _rescale(header: Dataset, frame_number: int | None) -> tuple[np.float32, np.float32]:
    """Slope and intercept of a frame: from its functional group, the shared one, or the root."""
    sources = [header]
    if frame_number is not None:
        groups = [
            *header.get("SharedFunctionalGroupsSequence", [])[:1],
            header.PerFrameFunctionalGroupsSequence[frame_number - 1],
        ]
        for group in groups:
            sources.extend(group.get("PixelValueTransformationSequence", [])[:1])
    for source in reversed(sources):
        if source.get("RescaleSlope") is not None:
            return np.float32(source.RescaleSlope), np.float32(source.get("RescaleIntercept") or 0)
    return np.float32(1), np.float32(0)


def _undecodable(series: SelectedSeries, index: int, syntax: str, problem: str) -> NotGradable:
    detail = f"slice {index + 1} of {len(series.slices)}, transfer syntax {syntax}: {problem}"
    return NotGradable(Reason.UNDECODABLE_PIXELS, detail)


def _image(voxels: Float32Array, series: SelectedSeries) -> sitk.Image:
    first, last = (np.array(series.slices[k].position_mm) for k in (0, -1))
    stacking = (last - first) / max(len(series.slices) - 1, 1)
    spacing = float(np.linalg.norm(stacking))
    row, column = np.array(series.orientation[:3]), np.array(series.orientation[3:])
    axes = np.column_stack(
        [row / np.linalg.norm(row), column / np.linalg.norm(column), stacking / spacing]
    )
    between_rows, between_columns = series.pixel_spacing_mm
    image = sitk.GetImageFromArray(voxels)
    image.SetOrigin(series.slices[0].position_mm)
    image.SetSpacing((between_columns, between_rows, spacing))
    image.SetDirection(axes.ravel().tolist())
    return image
