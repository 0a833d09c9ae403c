"""Synthetic subjects: a seed and a number always give the same head, scan and EPVS."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from core.results import Side
from training.synthetic.acquisition import (
    Imperfections,
    degrade,
    random_imperfections,
    sample,
)
from training.synthetic.anatomy import random_t2_contrast, signal_map
from training.synthetic.conditions import STANDARD, Conditions
from training.synthetic.grids import PROTOCOLS, Grid, place
from training.synthetic.lesions import draw_lesions, random_lesions
from training.synthetic.pose import Pose
from training.synthetic.vessels import Tube, draw_tubes, grow_epvs, grow_flow_voids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from training.synthetic.fields import Float32Array

CSF_SIGNAL: Final = 1100
"""Stored pixel value of CSF without bias field, typical of 12-bit scanners."""

_LOADS: Final = ((0, 0), (1, 16), (17, 34), (36, 70), (72, 115))
"""EPVS in the hemisphere with more of them, for ratings 0 to 4; a slice shows about half."""


@dataclass(frozen=True)
class Subject:
    """One synthetic scan with its ground truth.

    Attributes
    ----------
    voxels : ndarray of uint16, shape (slices, rows, columns)
    grid : Grid
    pose : Pose
    epvs : tuple of Tube
    visible : ndarray of bool, shape (len(epvs), slices)
        Which EPVS are visible in which slice.
    imperfections : Imperfections
    """

    seed: int
    number: int
    protocol: str
    voxels: NDArray[np.uint16]
    grid: Grid
    pose: Pose
    epvs: tuple[Tube, ...]
    visible: NDArray[np.bool_]
    imperfections: Imperfections

    def counts(self, side: Side) -> NDArray[np.int64]:
        """Return the number of visible EPVS in each slice of one hemisphere."""
        of_side = [tube.side is side for tube in self.epvs]
        return np.asarray(self.visible[of_side].sum(axis=0))

    @property
    def severity_count(self) -> int:
        """EPVS in the slice and hemisphere with most of them."""
        return int(max(self.counts(side).max() for side in Side))


def make_subject(
    seed: int, number: int, protocol: str | None = None, conditions: Conditions = STANDARD
) -> Subject:
    """Generate one subject of a cohort; for the parameters see `scan_head`."""
    return next(scan_head(seed, number, protocol, conditions))


def scan_head(
    seed: int, number: int, protocol: str | None = None, conditions: Conditions = STANDARD
) -> Iterator[Subject]:
    """Generate scans of one head, each with different EPVS, lesions and noise.

    Parameters
    ----------
    seed : int
        Seed of the cohort; two seeds share no subject.
    number : int
        Number of the head in the cohort. It determines the EPVS load of the first scan, which
        cycles through the five ratings; every further scan has the next load.
    protocol : str, optional
        Key of `PROTOCOLS`; drawn at random by default.
    conditions : Conditions

    Yields
    ------
    Subject
        All scans have the same position and grid; the iterator is infinite.
    """
    rng = np.random.default_rng([seed, number])
    name = protocol or str(rng.choice(list(PROTOCOLS), p=(0.4, 0.4, 0.2)))
    contrast = random_t2_contrast(rng)
    signal = signal_map(rng, contrast)
    pose = Pose(rng, conditions.pose)
    grid = place(
        rng,
        PROTOCOLS[name],
        shift_mm=conditions.shift_mm,
        oblique_deg=conditions.oblique_deg,
    )
    healthy = sample(signal, pose.transform, grid)
    for scan in itertools.count():
        epvs = _draw_epvs(rng, _LOADS[(number + scan) % len(_LOADS)], pose)
        voxels = healthy.copy()
        draw_lesions(random_lesions(rng, pose, conditions), grid, voxels)
        voids = grow_flow_voids(rng, rng.poisson(conditions.flow_voids), pose)
        draw_tubes(voids, grid, voxels, contrast.bone)
        signal_inside = contrast.csf * rng.uniform(*conditions.epvs_signal)
        visible = draw_tubes(epvs, grid, voxels, signal_inside)
        imperfections = random_imperfections(rng, conditions)
        stored = to_stored_values(degrade(rng, voxels, grid, imperfections))
        yield Subject(seed, number, name, stored, grid, pose, tuple(epvs), visible, imperfections)


def to_stored_values(voxels: Float32Array) -> NDArray[np.uint16]:
    """Convert signal to 12-bit stored values."""
    return np.clip(np.rint(voxels * CSF_SIGNAL), 0, 4095).astype(np.uint16)


def _draw_epvs(rng: np.random.Generator, load: tuple[int, int], pose: Pose) -> list[Tube]:
    fuller = int(rng.integers(load[0], load[1] + 1))
    counts = [fuller, int(fuller * rng.uniform(0.35, 1.0))]
    rng.shuffle(counts)
    return [
        tube
        for side, count in zip((Side.LEFT, Side.RIGHT), counts, strict=True)
        for tube in grow_epvs(rng, count, side, pose)
    ]
