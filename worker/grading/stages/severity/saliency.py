"""Saliency: `SeverityOutput` → `SaliencyMap`, the Grad-CAM in the patient's slices.

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
    """Map the activation of the last feature map onto the brain and scale it to 0–10.

    The coarse map is interpolated linearly, once, at the voxels of the scan. Map, scale and
    statistics refer to the brain inside the model's field of view: outside it the map is 0, and 10
    is the highest activation inside. If nothing in the brain is active, all are 0.

    Parameters
    ----------
    output : SeverityOutput
    input : SeverityInput
        The input that `output` was predicted from.
    volume : Volume
    registration : Registration
    template : Template

    Notes
    -----
    The model's input contains only the brain, but the feature map covers the whole field of view.
    Its maximum may lie at the edge, in the air in front of the forehead, above all in none-to-mild
    scans, where little else is active. Such activation does not refer to a place in the brain, so
    it must not enter the scale and the statistics.

    The scale is relative, as in the paper: 10 is the maximum of this scan, however weak. The map
    shows where the evidence for moderate-to-severe EPVS is highest, not how strong it is, which is
    what the probability expresses. Between scans, only the shapes of the distributions can be
    compared. A cell of the feature map is 14.4 mm wide and 72 mm high, so activation beside the
    brain extends into its rim.
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
    """Turn the feature map into an image whose voxels tile the grid exactly.

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
    """Third standardised moment of `values` (any shape); 0 if all are equal."""
    if not values.size:
        return 0.0
    deviation = values - values.mean()
    squared = deviation * deviation
    spread = np.sqrt(squared.mean())
    return float((squared * deviation).mean() / spread**3) if spread > 0 else 0.0
