"""Sixth step of the flow: `SeverityOutput` → `SaliencyMap`, Grad-CAM back on the patient's slices.

Severity paper, Methods: saliency maps normalised to 0–10, read together with the statistics of
their activation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import SimpleITK as sitk

from core.results import SaliencyStatistics
from worker.grading.records import (
    Float32Array,
    Registration,
    SaliencyMap,
    SeverityInput,
    SeverityOutput,
    Template,
    Volume,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

PEAK: Final = 10.0
HIGH: Final = 7.0
"""Activations above this mark the relevant regions in the paper's severe cases."""
_OUTSIDE: Final = -1.0


def map_saliency(
    output: SeverityOutput,
    input: SeverityInput,  # noqa: A002 - the pair of `output`
    volume: Volume,
    registration: Registration,
    template: Template,
) -> SaliencyMap:
    """Bring the last feature map's activation onto the brain, scale it to 0–10 and describe it.

    The coarse map is interpolated linearly, once, at the scan's own voxels. Map, scale and
    statistics are all of the brain inside the model's field of view: outside it the map is 0, and
    10 is the highest activation inside. All are 0 where nothing in the brain is active.

    Parameters
    ----------
    output : SeverityOutput
    input : SeverityInput
        What `output` is the answer to.
    volume : Volume
    registration : Registration
    template : Template

    Notes
    -----
    The model sees the brain alone, but its feature map covers the whole field of view and may be
    highest at the edge, in the air before the forehead, above all in none-to-mild scans, where
    little else is active. Such activation says nothing about a place in the brain; scaled by it,
    the brain's own map and statistics would depend on it.

    The scale is relative, as the paper's is: 10 is this scan's own maximum, however weak, so the
    map shows where the evidence for moderate-to-severe EPVS is highest, not how much there is (the
    probability says that). Two scans compare in the shape of their distributions only. A cell of
    the feature map is 14.4 mm wide and 72 mm high: activation beside the brain reaches into its
    rim.
    """
    coarse = spread_over(output.saliency, input.grid)
    mapped = sitk.Resample(
        coarse, volume.image, input.rigid.GetInverse(), sitk.sitkLinear, _OUTSIDE
    )
    activation = sitk.GetArrayFromImage(mapped)
    seen = activation != _OUTSIDE
    to_template = registration.affine.GetInverse()

    def on_scan(mask: sitk.Image) -> sitk.Image:
        return sitk.Resample(mask, volume.image, to_template, sitk.sitkNearestNeighbor, 0)

    brain = (sitk.GetArrayFromImage(on_scan(template.brain_mask)) > 0) & seen
    nuclei = (sitk.GetArrayFromImage(on_scan(template.basal_ganglia_mask)) > 0) & seen
    activation[~brain] = 0.0
    peak = float(activation.max())
    if peak > 0:
        activation *= PEAK / peak
    values = activation[brain].astype(np.float64)
    total = values.sum()
    image = sitk.GetImageFromArray(activation)
    image.CopyInformation(volume.image)
    return SaliencyMap(
        image=image,
        statistics=SaliencyStatistics(
            mean=float(values.mean()) if values.size else 0.0,
            skewness=skewness(values),
            share_above_7=float((values > HIGH).mean()) if values.size else 0.0,
            share_in_basal_ganglia=float(activation[nuclei & brain].sum() / total)
            if total > 0
            else 0.0,
        ),
    )


def spread_over(saliency: Float32Array, grid: sitk.Image) -> sitk.Image:
    """Feature map as an image whose voxels tile the grid, outer edge on outer edge.

    Parameters
    ----------
    saliency : ndarray, shape (depth, height, width)
    grid : SimpleITK.Image
        Of the input, or a coarser one of the same extent.
    """
    image = sitk.GetImageFromArray(np.ascontiguousarray(saliency, np.float32))
    ratio = np.array(grid.GetSize()) / image.GetSize()
    image.SetSpacing((ratio * grid.GetSpacing()).tolist())
    image.SetOrigin(grid.TransformContinuousIndexToPhysicalPoint((ratio / 2 - 0.5).tolist()))
    image.SetDirection(grid.GetDirection())
    return image


def skewness(values: NDArray[np.float64]) -> float:
    """Third standardised moment of `values`, of any shape; 0 where all are equal."""
    if not values.size:
        return 0.0
    deviation = values - values.mean()
    squared = deviation * deviation
    spread = np.sqrt(squared.mean())
    return float((squared * deviation).mean() / spread**3) if spread > 0 else 0.0
