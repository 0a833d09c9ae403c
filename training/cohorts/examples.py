"""Training data: scans through the node's own preprocessing, with the labels of each model.

Two doors lead here: synthetic subjects (`training.cohorts.synthetic`) and a site's own
(`training.cohorts.site`).
A cohort is a folder of one ``.npz`` file a subject. Files are written under a temporary name and
renamed, and existing ones are kept, so that an interrupted build goes on where it stopped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigurationError
from worker.grading.stages.rating.haar import enhance
from worker.grading.stages.registration import check_quality, register

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from worker.grading.records import RatingInput, Registration, SeverityInput, Template, Volume

SEVERE_COUNT: Final = 10
"""EPVS in the fullest slice and hemisphere from which severity is moderate-to-severe."""
DESCRIPTION: Final = "cohort.json"
"""File of a cohort's folder that says what it was made from."""
_CROP_SCALE: Final = 65535
_VOLUME_SCALE: Final = 255

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """One subject as both models see it.

    Attributes
    ----------
    crops : ndarray of uint16, shape (6, 112, 86)
        The images that are rated, before the Haar enhancement, in steps of 1/65535.
    counts : ndarray of int, shape (6,)
        EPVS visible in the slice and hemisphere of each crop; where readers gave grades, the least
        count of each grade.
    volume : ndarray of uint8, shape (16, 512, 512)
        Input of the severity model in steps of 1/255; empty where it was left out.
    severity_count : int
        EPVS in the slice and hemisphere with most of them.
    severity_truth : ndarray of float16, shape (3, 16, 64, 64)
        What lies where in `volume`: see `training.cohorts.ground_truth`. Empty for a site's scans,
        of which this is not known.
    head : str
        Scans of one head belong to the same part of a split.
    facts : dict
        How a synthetic scan was made and how far its registration is off, for the analysis of
        errors; empty for a site's own.
    """

    crops: NDArray[np.uint16]
    counts: NDArray[np.int64]
    volume: NDArray[np.uint8]
    severity_count: int
    severity_truth: NDArray[np.float16] = field(default_factory=lambda: np.empty(0, np.float16))
    head: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def rating_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ratings 0–4 of EPVS counts (rating paper, Table 2)."""
    return np.digitize(counts, [1, 11, 21, 41])


def align(volume: Volume, template: Template) -> Registration:
    """Register a scan as the node does.

    Raises
    ------
    NotGradable
        The registration's quality check does not recognise a T2 brain.
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
    """Join both models' inputs with their labels, as `Example` describes them."""
    volume = np.empty((0, 0, 0)) if severity is None else severity.volume[0, 0]
    return Example(
        crops=np.rint(rating.crops[:, 0] * _CROP_SCALE).astype(np.uint16),
        counts=counts,
        volume=np.rint(volume * _VOLUME_SCALE).astype(np.uint8),
        severity_count=severity_count,
    )


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

    Raises
    ------
    ConfigurationError
        As `describe_cohort`.
    """
    _description(folder)
    examples = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            volume = _centre(stored["volume"], window) if volumes else np.empty(0, np.uint8)
            examples.append(
                Example(
                    crops=stored["crops"],
                    counts=stored["counts"],
                    volume=volume,
                    severity_count=int(stored["severity_count"]),
                    severity_truth=stored["severity_truth"]
                    if "severity_truth" in stored
                    else np.empty(0, np.float16),
                    head=path.stem.split("-")[0],
                    facts=json.loads(str(stored["facts"])),
                )
            )
    return examples


def describe_cohort(folder: Path) -> dict[str, Any]:
    """Describe a stored cohort: what it was made from, subjects, scans that were refused.

    Raises
    ------
    ConfigurationError
        The folder is no cohort, or a site's cohort that has not been read to its end.
    """
    description = _description(folder)
    scans = [path.stem for path in folder.glob("*.npz")]
    return description | {
        "scans": len(scans),
        "heads": len({scan.split("-")[0] for scan in scans}),
        "rejected_heads": len(list(folder.glob("*.rejected"))),
    }


def require_severity_labels(folder: Path) -> None:
    """Refuse a site's cohort in which a subject has no count for the severity model.

    The fullest of the six graded images is no substitute: other slices may show more.

    Raises
    ------
    ConfigurationError
    """
    if not _description(folder).get("severity_labels", True):
        raise ConfigurationError(
            "Some subjects of this cohort have no severity_count.",
            "Fill in that column, or keep to the rating model.",
        )


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ConfigurationError(
            f"{folder} is no cohort.", "Make one with `python -m training cohort-from-csv`."
        )
    description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if not description.get("complete", True):
        raise ConfigurationError(
            f"{folder} has not been read to its end.", "Run cohort-from-csv again: it resumes."
        )
    return description


def is_validation(examples: Sequence[Example]) -> NDArray[np.bool_]:
    """Mark the scans that choose the epoch to keep: those of every eleventh head."""
    heads = sorted({example.head for example in examples})
    chosen = set(heads[10::11])  # EPVS loads cycle by five: every tenth would always have the same
    return np.array([example.head in chosen for example in examples])


def crops_as_input(crops: NDArray[np.uint16], enhancement: str) -> Float32Array:
    """Enhance stored crops (..., 112, 86) to the rating model's input, (..., 1, 112, 86)."""
    plain = crops.astype(np.float32) / np.float32(_CROP_SCALE)
    enhanced = [enhance(crop, enhancement) for crop in plain.reshape(-1, *plain.shape[-2:])]
    return np.reshape(enhanced, plain.shape)[..., None, :, :]


def volume_as_input(volume: NDArray[np.uint8]) -> Float32Array:
    """Convert stored volumes (..., 16, rows, columns) to the severity model's input."""
    return (volume.astype(np.float32) / np.float32(_VOLUME_SCALE))[..., None, :, :, :]


def _centre(volume: NDArray[np.uint8], window: int) -> NDArray[np.uint8]:
    """Cut the central rows and columns out of a volume."""
    margin = (volume.shape[1] - window) // 2
    return volume[:, margin : margin + window, margin : margin + window].copy()


def store_example(target: Path, example: Example) -> None:
    """Write one subject of a cohort, whole or not at all."""
    unfinished = target.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez_compressed(
            file,
            crops=example.crops,
            counts=example.counts,
            volume=example.volume,
            severity_count=example.severity_count,
            severity_truth=example.severity_truth,
            facts=json.dumps(example.facts),
        )
    unfinished.rename(target)
