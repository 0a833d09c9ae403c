"""Cohort folder: one ``.npz`` file per scan and ``cohort.json``, which says what it was made from.

Files are written atomically and existing ones are kept, so that an interrupted build resumes.
Synthetic cohorts are built by `training.cohorts.synthetic`, a site's by `training.cohorts.site`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from core.errors import ConfigurationError
from training.cohorts.examples import Example
from training.storage import write_arrays, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_DESCRIPTION: Final = "cohort.json"


def load_cohort(folder: Path, *, volumes: bool = True, window: int = 512) -> list[Example]:
    """Read all examples of a cohort.

    Parameters
    ----------
    folder : Path
    volumes : bool
        Whether to load the severity volumes; otherwise they are empty.
    window : int
        Rows and columns to keep around the centre of the severity volumes.

    Returns
    -------
    list of Example

    Raises
    ------
    ConfigurationError
        The folder is not a cohort, or building the cohort has not finished.
    """
    _complete_description(folder)
    return [_load_example(path, window if volumes else 0) for path in sorted(folder.glob("*.npz"))]


def _load_example(path: Path, window: int) -> Example:
    with np.load(path) as stored:
        return Example(
            crops=stored["crops"],
            counts=stored["counts"],
            volume=_centre(stored["volume"], window) if window else np.empty(0, np.uint8),
            severity_count=int(stored["severity_count"]),
            ground_truth=stored["ground_truth"],
            head=_head_of(path),
            facts=json.loads(str(stored["facts"])),
        )


def store_example(target: Path, example: Example) -> None:
    """Write one example; its subject is the part of the file's name before the first hyphen."""
    write_arrays(
        target,
        crops=example.crops,
        counts=example.counts,
        volume=example.volume,
        severity_count=example.severity_count,
        ground_truth=example.ground_truth,
        facts=json.dumps(example.facts),
    )


def read_description(folder: Path) -> dict[str, Any] | None:
    """Return the content of ``cohort.json``; None if the folder has none."""
    path = folder / _DESCRIPTION
    if not path.is_file():
        return None
    description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return description


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Write ``cohort.json``."""
    write_json(folder / _DESCRIPTION, description)


def describe_cohort(folder: Path) -> dict[str, Any]:
    """Return what a cohort was made from, with its numbers of scans, heads and rejected heads.

    Raises
    ------
    ConfigurationError
        The folder is not a cohort, or building the cohort has not finished.
    """
    description = _complete_description(folder)
    scans = list(folder.glob("*.npz"))
    return description | {
        "scans": len(scans),
        "heads": len({_head_of(path) for path in scans}),
        "rejected_heads": len(list(folder.glob("*.rejected"))),
    }


def require_severity_labels(folder: Path) -> None:
    """Check that every subject of a cohort has a label for the severity model.

    The highest count of the six graded images is no substitute: other slices may show more EPVS.

    Raises
    ------
    ConfigurationError
        Some subjects have no severity count.
    """
    if not _complete_description(folder).get("severity_labels", True):
        raise ConfigurationError(
            "Some subjects of this cohort have no severity_count.",
            "Fill in that column, or train the rating model only.",
        )


def split_validation(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Split a cohort into training and validation examples.

    Every eleventh head is used for validation: EPVS loads repeat every five heads, so that every
    tenth head would always have the same load. With fewer than eleven heads there is no
    validation part.

    Returns
    -------
    training, validation : list of Example
    """
    heads = sorted({example.head for example in examples})
    validation_heads = set(heads[10::11])
    training = [example for example in examples if example.head not in validation_heads]
    validation = [example for example in examples if example.head in validation_heads]
    return training, validation


def _complete_description(folder: Path) -> dict[str, Any]:
    description = read_description(folder)
    if description is None:
        raise ConfigurationError(
            f"{folder} is not a cohort.", "Build one with `python -m training cohort-from-csv`."
        )
    if not description.get("complete", True):
        raise ConfigurationError(
            f"The cohort in {folder} is incomplete.", "Run cohort-from-csv again; it resumes."
        )
    return description


def _head_of(path: Path) -> str:
    return path.stem.split("-")[0]


def _centre(volume: NDArray[np.uint8], window: int) -> NDArray[np.uint8]:
    """Cut the central rows and columns out of a volume."""
    margin = (volume.shape[1] - window) // 2
    return volume[:, margin : margin + window, margin : margin + window].copy()
