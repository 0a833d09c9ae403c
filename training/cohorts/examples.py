"""Training examples: the inputs of both models for one scan, with their labels.

The inputs come from the node's own registration and preprocessing stages, so that a network is
trained on exactly what the node sends it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.grading.stages.rating.haar import enhance
from worker.grading.stages.registration import check_quality, register

if TYPE_CHECKING:
    from worker.grading.records import RatingInput, Registration, SeverityInput, Template, Volume

SEVERE_COUNT: Final = 10
"""Fewest EPVS, in the slice and hemisphere with most of them, that are moderate-to-severe."""
_CROP_SCALE: Final = 65535
_VOLUME_SCALE: Final = 255

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """Inputs of both models for one scan, and its labels.

    Attributes
    ----------
    crops : ndarray of uint16, shape (6, 112, 86)
        Images to rate, before the Haar enhancement, in steps of 1/65535.
    counts : ndarray of int, shape (6,)
        EPVS visible in the slice and hemisphere of each crop. Where readers gave grades, the
        lowest count of each grade.
    volume : ndarray of uint8, shape (16, 512, 512)
        Input of the severity model, in steps of 1/255; empty if it was not computed.
    severity_count : int
        EPVS in the slice and hemisphere with most of them.
    ground_truth : ndarray of float16, shape (3, 16, 64, 64)
        Brain, basal ganglia and EPVS in `volume`: see `training.cohorts.ground_truth`. Empty for
        a site's scans, for which the positions of the EPVS are unknown.
    head : str
        Subject. All scans of a head go to the same part of a split.
    facts : dict
        Acquisition parameters of a synthetic scan and the error of its registration, for the
        analysis of errors; empty for a site's scans.
    """

    crops: NDArray[np.uint16]
    counts: NDArray[np.int64]
    volume: NDArray[np.uint8]
    severity_count: int
    ground_truth: NDArray[np.float16] = field(default_factory=lambda: np.empty(0, np.float16))
    head: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def rating_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ratings 0–4 for EPVS counts (rating paper, Table 2)."""
    return np.digitize(counts, [1, 11, 21, 41])


def register_scan(volume: Volume, template: Template) -> Registration:
    """Register a scan as the node does, on one thread.

    Raises
    ------
    NotGradable
        The registration failed the quality check for a T2-weighted brain.
    """
    registration = register(volume, template, threads=1)
    check_quality(registration.quality)
    return registration


def label_inputs(
    rating: RatingInput,
    severity: SeverityInput | None,
    *,
    counts: NDArray[np.int64],
    severity_count: int,
) -> Example:
    """Combine the inputs of both models with their labels; see `Example`."""
    volume = np.empty((0, 0, 0)) if severity is None else severity.volume[0, 0]
    return Example(
        crops=np.rint(rating.crops[:, 0] * _CROP_SCALE).astype(np.uint16),
        counts=counts,
        volume=np.rint(volume * _VOLUME_SCALE).astype(np.uint8),
        severity_count=severity_count,
    )


def crops_as_input(crops: NDArray[np.uint16], enhancement: str) -> Float32Array:
    """Enhance stored crops (..., 112, 86) to the rating model's input, (..., 1, 112, 86)."""
    plain = crops.astype(np.float32) / np.float32(_CROP_SCALE)
    enhanced = [enhance(crop, enhancement) for crop in plain.reshape(-1, *plain.shape[-2:])]
    return np.reshape(enhanced, plain.shape)[..., None, :, :]


def volume_as_input(volume: NDArray[np.uint8]) -> Float32Array:
    """Convert stored volumes (..., 16, rows, columns) to the severity model's input."""
    return (volume.astype(np.float32) / np.float32(_VOLUME_SCALE))[..., None, :, :, :]
