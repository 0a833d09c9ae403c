"""Assembly: `SelectedSeries` → voxels → `Volume`, one float32 image in patient space."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.pixels.utils import iter_pixels

from core.reasons import Reason
from worker.grading.errors import NotGradable
from worker.grading.files import UnsafeInstance, check_pixels, open_instance
from worker.grading.files.checks import check_size
from worker.grading.records import Float32Array, SelectedSeries, Volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

Allocate = Callable[[tuple[int, ...]], Float32Array]

_HEADER: Final = [
    "PhotometricInterpretation",
    "RescaleSlope",
    "RescaleIntercept",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]


def new_array(shape: tuple[int, ...]) -> Float32Array:
    """Allocate an array in the memory of this process."""
    return np.empty(shape, np.float32)


def assemble(series: SelectedSeries, voxels: Float32Array) -> Volume:
    """Place the voxels of a series in patient space.

    The slice axis of the image is the vector between the outermost slice positions, not the cross
    product of the in-plane directions, so a left-handed stack keeps its handedness.

    Parameters
    ----------
    series : SelectedSeries
    voxels : ndarray, shape (slices, rows, columns), float32
        Of `decode_slices`.
    """
    return Volume(_image(voxels, series), series)


def read_volume(series: SelectedSeries) -> Volume:
    """Decode a series and place it in patient space; raises what `decode_slices` raises."""
    return assemble(series, decode_slices(series))


def decode_slices(series: SelectedSeries, allocate: Allocate = new_array) -> Float32Array:
    """Decode the slices of a series.

    Rescale slope and intercept are applied slice by slice (PS3.3 C.11.1); MONOCHROME1 is inverted,
    so that bright is always high.

    Parameters
    ----------
    series : SelectedSeries
    allocate : callable
        Returns a float32 array of the shape (slices, rows, columns) for the result.

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
            file = open_instance(path)
        except UnsafeInstance as error:
            raise _undecodable(series, indices[0], "unknown", str(error)) from error
        with file:
            for index, values, is_inverted in _decode(file, series, indices):
                if voxels is None:
                    voxels = allocate((len(series.slices), *values.shape))
                voxels[index] = values
                inverted = is_inverted
    if voxels is None:
        raise NotGradable(Reason.NO_IMAGES, "the series holds no slices")
    if inverted:
        np.subtract(voxels.max() + voxels.min(), voxels, out=voxels)
    return voxels


def _decode(
    file: BinaryIO, series: SelectedSeries, indices: Sequence[int]
) -> Iterator[tuple[int, Float32Array, bool]]:
    """Yield (slice index, rescaled pixels, whether MONOCHROME1) for the slices in one file."""
    index, syntax = indices[0], "unknown"
    try:
        header = dcmread(file, stop_before_pixels=True, force=True, specific_tags=_HEADER)
        syntax = str(header.file_meta.get("TransferSyntaxUID", syntax))[:64]
        check_pixels(file)
        file.seek(0)
        frames = _frames(file, [series.slices[k].frame_number for k in indices])
        for index in indices:
            slope, intercept = _rescale(header, series.slices[index].frame_number)
            values = next(frames).astype(np.float32) * slope + intercept
            _check_values(values, len(series.slices))
            yield index, values, header.get("PhotometricInterpretation") == "MONOCHROME1"
    except MemoryError:
        raise
    except UnsafeInstance as error:
        raise _undecodable(series, index, syntax, str(error)) from error
    except Exception as error:
        # The bytes may be hostile, and five third-party decoders read them: any exception is a
        # finding about this slice, and the study ends with a reason instead of retries.
        raise _undecodable(series, index, syntax, type(error).__name__) from error


def _check_values(values: Float32Array, n_slices: int) -> None:
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError("not one finite value a pixel")
    check_size(n_slices, *values.shape)


def _frames(file: BinaryIO, numbers: Sequence[int | None]) -> Iterator[NDArray[np.generic]]:
    wanted = None if numbers[0] is None else [number - 1 for number in numbers if number]
    return iter_pixels(file, raw=True, indices=wanted)


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
