"""Ground truth of a synthetic severity input: where brain, basal ganglia and EPVS lie.

It is used to judge the saliency map. The severity paper judged its maps by eye, because nobody can
mark every EPVS in real scans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import SimpleITK as sitk

from training.synthetic.dicom import as_image
from training.synthetic.vessels import render
from worker.grading.stages.severity.window import on_grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.synthetic.subjects import Subject
    from training.synthetic.vessels import Patch
    from worker.grading.records import Float32Array, Registration, SeverityInput, Template

BLOCK: Final = 8
"""Rows and columns of the input per block: 3.6 mm, close to the slice spacing of 4.5 mm."""
BRAIN, BASAL_GANGLIA, EPVS = range(3)
"""Indices into the first axis of the result of `ground_truth_of`."""


def ground_truth_of(
    subject: Subject, registration: Registration, template: Template, severity: SeverityInput
) -> NDArray[np.float16]:
    """Compute the contents of each block of a synthetic severity input.

    Parameters
    ----------
    subject : Subject
    registration : Registration
    template : Template
    severity : SeverityInput
        Defines the grid.

    Returns
    -------
    ndarray of float16, shape (3, 16, 64, 64)
        Fraction of each block that is brain, fraction that is basal ganglia, and number of visible
        EPVS. An EPVS counts once for each slice of the scan that shows it.
    """
    masks = (template.brain_mask, template.basal_ganglia_mask)
    fractions = [_block_fractions(on_grid(mask, severity.grid, registration)) for mask in masks]
    epvs = np.zeros_like(fractions[0])
    scan = as_image(subject)
    to_grid = severity.rigid.GetInverse()
    for tube, visible in zip(subject.epvs, subject.visible, strict=True):
        for patch in render(tube, subject.grid):
            if not visible[patch.slice_index]:
                continue
            in_patient = scan.TransformContinuousIndexToPhysicalPoint(_centre_of(patch))
            index = severity.grid.TransformPhysicalPointToContinuousIndex(
                to_grid.TransformPoint(in_patient)
            )
            column, row, plane = np.rint(index).astype(int).tolist()
            place = (plane, row // BLOCK, column // BLOCK)
            if all(0 <= at < size for at, size in zip(place, epvs.shape, strict=True)):
                epvs[place] += 1
    return np.stack([*fractions, epvs]).astype(np.float16)


def _block_fractions(mask: sitk.Image) -> Float32Array:
    """Fraction of each block that a mask covers."""
    voxels = (sitk.GetArrayFromImage(mask) > 0).astype(np.float32)
    planes, rows, columns = voxels.shape
    blocks = voxels.reshape(planes, rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    return np.asarray(blocks.mean(axis=(2, 4)))


def _centre_of(patch: Patch) -> tuple[float, float, float]:
    """Weighted centre of a patch as a continuous index (column, row, slice)."""
    rows, columns = np.indices(patch.share.shape)
    total = patch.share.sum()
    return (
        float(patch.columns.start + (columns * patch.share).sum() / total),
        float(patch.rows.start + (rows * patch.share).sum() / total),
        float(patch.slice_index),
    )
