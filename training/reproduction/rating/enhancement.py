"""Effect of the Haar enhancements on single EPVS: contrast-to-noise ratio and lost EPVS."""

from __future__ import annotations

import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import SimpleITK as sitk

from training.cohorts.examples import register_scan
from training.cohorts.synthetic import as_volume
from training.storage import write_json
from training.synthetic.subjects import Subject, make_subject
from training.synthetic.vessels import VISIBLE_SHARE, render
from worker.grading.errors import NotGradable
from worker.grading.stages.rating import prepare_rating
from worker.grading.stages.rating.crops import IndexMap, cut
from worker.grading.stages.rating.haar import ENHANCEMENTS, enhance
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from core.results import Crop
    from worker.grading.records import Float32Array, Registration

SEED: Final = 7007
SUBJECTS: Final = 30
FAINT: Final = 0.5
"""EPVS that fill at most this share of any pixel of the slice are faint."""
VISIBLE_CNR: Final = 2.0
_RING_PX: Final = (2.0, 7.0)
"""Distances from the EPVS (pixels of 0.465 mm) between which the background is measured."""
_FEWEST_PX: Final = 20
_FREE: Final = 0.05
"""Largest share of a background pixel that other EPVS may fill."""


@dataclass(frozen=True)
class EnhancementFigures:
    """Effect of one enhancement on EPVS in the graded images.

    Attributes
    ----------
    cnr, faint_cnr : float
        Median contrast-to-noise ratio: (mean inside − mean of the background) / standard deviation
        of the background.
    faint_visible : float
        Share of the faint EPVS with a contrast-to-noise ratio of at least `VISIBLE_CNR`.
    faint_lost : float
        Share of the faint EPVS that keep less than half of their contrast.
    milliseconds : float
        Median time per image.
    """

    cnr: float
    faint_cnr: float
    faint_visible: float
    faint_lost: float
    milliseconds: float


class _Measured(NamedTuple):
    """One EPVS in one image: largest share of a pixel; contrast and CNR by enhancement."""

    fullest: float
    contrast: tuple[float, ...]
    cnr: tuple[float, ...]


def compare_enhancements(
    file: Path, *, subjects: int = SUBJECTS, processes: int = 1
) -> tuple[dict[str, EnhancementFigures], int, int]:
    """Measure both enhancements, and none, on the same EPVS.

    Parameters
    ----------
    file : Path
        Stores the result, so that a resumed reproduction does not measure again.
    subjects : int
        Synthetic subjects, of a seed that is not used for training.
    processes : int

    Returns
    -------
    figures : dict
        By enhancement.
    epvs, faint : int
        Number of EPVS measured, and number of faint ones among them.
    """
    if not file.exists():
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            found = list(pool.map(_measure_subject, range(subjects)))
        measured = [epvs for one, _ in found for epvs in one]
        seconds = np.concatenate([times for _, times in found])
        write_json(file, _summarise(measured, seconds))
    stored = json.loads(file.read_text(encoding="utf-8"))
    figures = {name: EnhancementFigures(**values) for name, values in stored["figures"].items()}
    return figures, stored["epvs"], stored["faint"]


def _summarise(
    measured: Sequence[_Measured], seconds: NDArray[np.float64]
) -> dict[str, dict[str, dict[str, float]] | int]:
    cnr, contrast = np.array([m.cnr for m in measured]), np.array([m.contrast for m in measured])
    faint = np.array([m.fullest for m in measured]) <= FAINT
    plain = contrast[faint, ENHANCEMENTS.index("none")]
    figures = {
        name: asdict(
            EnhancementFigures(
                cnr=float(np.median(cnr[:, i])),
                faint_cnr=float(np.median(cnr[faint, i])),
                faint_visible=float(np.mean(cnr[faint, i] >= VISIBLE_CNR)),
                faint_lost=float(np.mean(contrast[faint, i] < plain / 2)),
                milliseconds=float(1000 * np.median(seconds[:, i])),
            )
        )
        for i, name in enumerate(ENHANCEMENTS)
    }
    return {"figures": figures, "epvs": len(measured), "faint": int(faint.sum())}


def _measure_subject(number: int) -> tuple[list[_Measured], NDArray[np.float64]]:
    """Measure all EPVS in the graded images of one subject; none if it is not gradable."""
    subject = make_subject(SEED, number)
    volume = as_volume(subject)
    try:
        registration = register_scan(volume, load_template())
        rating = prepare_rating(volume, registration, enhancement="none")
    except NotGradable:
        return [], np.empty((0, len(ENHANCEMENTS)))
    measured, seconds = [], []
    for crop, plain in zip(rating.placements, rating.crops[:, 0], strict=True):
        images, times = [], []
        for name in ENHANCEMENTS:
            started = time.perf_counter()
            images.append(enhance(plain, name))
            times.append(time.perf_counter() - started)
        seconds.append(times)
        shares = epvs_in_crop(subject, registration, crop)
        everything = np.max([np.zeros_like(plain), *shares], axis=0)
        measured += [m for share in shares if (m := _measure(share, everything, images))]
    return measured, np.array(seconds)


def epvs_in_crop(subject: Subject, registration: Registration, crop: Crop) -> list[Float32Array]:
    """Return, for each visible EPVS, the share of every pixel of a crop that it fills."""
    to_index = IndexMap.of(subject.grid.image(subject.voxels), registration.affine)
    in_plane = IndexMap(to_index.matrix, to_index.offset - np.array([0, 0, crop.slice_index]))
    shares = []
    for tube, visible in zip(subject.epvs, subject.visible[:, crop.slice_index], strict=True):
        if not visible or tube.side is not crop.side:
            continue
        plane = np.zeros((1, subject.grid.rows, subject.grid.columns), dtype=np.float32)
        for patch in render(tube, subject.grid):
            if patch.slice_index == crop.slice_index:
                plane[0, patch.rows, patch.columns] = patch.share
        shares.append(cut(sitk.GetImageFromArray(plane), in_plane, 0, crop.side))
    return shares


def _measure(
    share: Float32Array, everything: Float32Array, images: Sequence[Float32Array]
) -> _Measured | None:
    """Measure one EPVS in every version of an image; None if that is not possible."""
    fullest = float(share.max())
    if fullest <= VISIBLE_SHARE / 2:  # outside the crop or truncated by its edge
        return None
    inside = share >= fullest / 2
    away = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(sitk.GetImageFromArray(inside.astype(np.uint8)), False, False)
    )
    ring = (away >= _RING_PX[0]) & (away <= _RING_PX[1]) & (everything < _FREE)
    if ring.sum() < _FEWEST_PX:  # other EPVS are too close
        return None
    contrast = [float(image[inside].mean() - image[ring].mean()) for image in images]
    noise = [max(float(image[ring].std()), 1e-6) for image in images]
    return _Measured(fullest, tuple(contrast), tuple(np.divide(contrast, noise).tolist()))
