"""What truly lies where in the severity network's input, for judging where its saliency points.

A phantom's EPVS are known one by one; that no reader of real scans could mark them all is why the
severity paper had to judge its saliency by eye.
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
"""Rows and columns of the input that are taken together: 3.6 mm, near the slices' 4.5 mm."""
BRAIN, BASAL_GANGLIA, EPVS = range(3)
"""Planes of what `severity_truth` returns."""


def severity_truth(
    subject: Subject, registration: Registration, template: Template, severity: SeverityInput
) -> NDArray[np.float16]:
    """Describe the blocks of a phantom's severity input.

    Parameters
    ----------
    subject : Subject
    registration : Registration
    template : Template
    severity : SeverityInput
        Gives the grid.

    Returns
    -------
    ndarray of float16, shape (3, 16, 64, 64)
        Share of each block that is brain, and that is basal ganglia; how many EPVS are visible in
        it, each counted once in every slice of the scan that shows it.
    """
    masks = (template.brain_mask, template.basal_ganglia_mask)
    shares = [_share(on_grid(mask, severity.grid, registration)) for mask in masks]
    epvs = np.zeros_like(shares[0])
    scan = as_image(subject)
    to_grid = severity.rigid.GetInverse()
    for tube, visible in zip(subject.epvs, subject.visible, strict=True):
        for patch in render(tube, subject.grid):
            if not visible[patch.slice_index]:
                continue
            in_patient = scan.TransformContinuousIndexToPhysicalPoint(_middle(patch))
            index = severity.grid.TransformPhysicalPointToContinuousIndex(
                to_grid.TransformPoint(in_patient)
            )
            column, row, plane = np.rint(index).astype(int).tolist()
            place = (plane, row // BLOCK, column // BLOCK)
            if all(0 <= at < size for at, size in zip(place, epvs.shape, strict=True)):
                epvs[place] += 1
    return np.stack([*shares, epvs]).astype(np.float16)


def _share(mask: sitk.Image) -> Float32Array:
    voxels = (sitk.GetArrayFromImage(mask) > 0).astype(np.float32)
    planes, rows, columns = voxels.shape
    blocks = voxels.reshape(planes, rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    return np.asarray(blocks.mean(axis=(2, 4)))


def _middle(patch: Patch) -> tuple[float, float, float]:
    """Centre of a patch as continuous index (column, row, slice)."""
    rows, columns = np.indices(patch.share.shape)
    total = patch.share.sum()
    return (
        float(patch.columns.start + (columns * patch.share).sum() / total),
        float(patch.rows.start + (rows * patch.share).sum() / total),
        float(patch.slice_index),
    )
