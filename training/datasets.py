"""Training data: scans through the node's own preprocessing, with the labels of each model.

A cohort is a folder of one ``.npz`` file a subject. Files are written under a temporary name and
renamed, and existing ones are kept, so that an interrupted build goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from core.errors import Rejected
from core.records import (
    RatingInput,
    RegistrationQuality,
    SelectedSeries,
    SeverityInput,
    SliceLocation,
    Template,
    Volume,
)
from training.synthetic.cohort import Subject, make_subject
from training.synthetic.dicom import as_image
from worker.stages.rating import prepare_rating
from worker.stages.registration import check_quality, register
from worker.stages.severity import prepare_severity
from worker.stages.template import load_template

SEVERE_COUNT: Final = 10
"""EPVS in the fullest slice and hemisphere from which severity is moderate-to-severe."""
_CROP_SCALE: Final = 65535
_VOLUME_SCALE: Final = 255

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """One subject as both models see it.

    Attributes
    ----------
    crops : ndarray of uint16, shape (6, 112, 86)
        Input of the rating model in steps of 1/65535.
    counts : ndarray of int, shape (6,)
        EPVS visible in the slice and hemisphere of each crop.
    volume : ndarray of uint8, shape (16, 512, 512)
        Input of the severity model in steps of 1/255.
    severity_count : int
        EPVS in the slice and hemisphere with most of them.
    """

    crops: NDArray[np.uint16]
    counts: NDArray[np.int64]
    volume: NDArray[np.uint8]
    severity_count: int


def rating_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ratings 0–4 of EPVS counts (rating paper, Table 2)."""
    return np.digitize(counts, [1, 11, 21, 41])


def preprocess(
    volume: Volume, template: Template, *, enhancement: str = "stationary"
) -> tuple[RatingInput, SeverityInput, RegistrationQuality]:
    """Register a scan and prepare both models' inputs, exactly as the node does.

    Raises
    ------
    Rejected
        The registration's quality check does not recognise a T2 brain.
    """
    registration = register(volume, template, threads=1)
    check_quality(registration.quality)
    return (
        prepare_rating(volume, registration, enhancement=enhancement),
        prepare_severity(volume, registration, template),
        registration.quality,
    )


def as_volume(subject: Subject) -> Volume:
    """A synthetic subject as the record that the pipeline's stages take."""
    grid = subject.grid
    positions = grid.origin_mm + np.arange(grid.slices)[:, None] * (
        grid.direction[:, 2] * grid.spacing_mm
    )
    name = f"synthetic-{subject.seed}-{subject.number}"
    slices = tuple(
        SliceLocation(Path(name), f"{name}-{k}", "", None, tuple(float(v) for v in p))
        for k, p in enumerate(positions)
    )
    series = SelectedSeries(
        study_uid=name,
        series_uid=name,
        slices=slices,
        orientation=tuple(float(v) for v in grid.direction[:, :2].T.ravel()),
        pixel_spacing_mm=(grid.pixel_mm, grid.pixel_mm),
        slice_spacing_mm=grid.spacing_mm,
        verdicts=(),
    )
    return Volume(sitk.Cast(as_image(subject), sitk.sitkFloat32), series)


def make_example(subject: Subject, template: Template, enhancement: str) -> Example:
    """Preprocess one synthetic subject and label both inputs."""
    rating, severity, _ = preprocess(as_volume(subject), template, enhancement=enhancement)
    counts = [subject.counts(crop.side)[crop.slice_index] for crop in rating.placements]
    return Example(
        crops=np.rint(rating.crops[:, 0] * _CROP_SCALE).astype(np.uint16),
        counts=np.array(counts, dtype=np.int64),
        volume=np.rint(severity.volume[0, 0] * _VOLUME_SCALE).astype(np.uint8),
        severity_count=subject.severity_count,
    )


def build_cohort(
    folder: Path, seed: int, numbers: range, *, enhancement: str = "stationary"
) -> Iterator[str]:
    """Make, preprocess and store the subjects of a synthetic cohort.

    Parameters
    ----------
    folder : Path
    seed : int
    numbers : range
        Subject numbers; several processes may share a cohort.
    enhancement : str
        Haar enhancement of the crops.

    Yields
    ------
    str
        One line a subject, for the progress display.
    """
    folder.mkdir(parents=True, exist_ok=True)
    template = load_template()
    for number in numbers:
        target = folder / f"{number:05d}.npz"
        refused = target.with_suffix(".rejected")
        if target.exists() or refused.exists():
            continue
        try:
            example = make_example(make_subject(seed, number), template, enhancement)
        except Rejected as rejection:
            refused.write_text(f"{rejection}\n", encoding="utf-8")
            yield f"{number}: {rejection}"
            continue
        _store(target, example)
        yield f"{number}: counts {example.counts.tolist()}, most {example.severity_count}"


def load_cohort(folder: Path, *, volumes: bool = True, window: int = 512) -> list[Example]:
    """Read a stored cohort.

    Parameters
    ----------
    folder : Path
    volumes : bool
        Whether the severity volumes are wanted; without them they are empty.
    window : int
        Rows and columns kept around the centre of the severity volumes.

    Returns
    -------
    list of Example
    """
    margin = (512 - window) // 2
    cut = slice(margin, 512 - margin)
    examples = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            volume = stored["volume"][:, cut, cut].copy() if volumes else np.empty(0, np.uint8)
            examples.append(
                Example(stored["crops"], stored["counts"], volume, int(stored["severity_count"]))
            )
    return examples


def crops_as_input(crops: NDArray[np.uint16]) -> Float32Array:
    """Stored crops (..., 112, 86) as the rating model takes them, (..., 1, 112, 86)."""
    return (crops.astype(np.float32) / _CROP_SCALE)[..., None, :, :]


def volume_as_input(volume: NDArray[np.uint8]) -> Float32Array:
    """Stored volumes (..., 16, rows, columns) as the severity model takes them."""
    return (volume.astype(np.float32) / _VOLUME_SCALE)[..., None, :, :, :]


def _store(target: Path, example: Example) -> None:
    partial = target.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            crops=example.crops,
            counts=example.counts,
            volume=example.volume,
            severity_count=example.severity_count,
        )
    partial.rename(target)
