"""The input of the rating model: `Volume` + `Registration` → `RatingInput`.

Rating paper, section 2.4.1: divide by the maximum of the scan, crop the left and right basal
ganglia in three slices to 112 × 86 pixels, enhance with a Haar transform.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from core.reasons import Reason
from core.results import Crop, Level, Side
from worker.grading.errors import NotGradable
from worker.grading.records import RatingInput, Registration, Volume
from worker.grading.stages.rating.crops import IndexMap, corners, cut, graded_slices
from worker.grading.stages.rating.haar import enhance

__all__ = ["prepare_rating"]


def prepare_rating(
    volume: Volume, registration: Registration, *, enhancement: str = "stationary"
) -> RatingInput:
    """Crop and enhance the six images that the rating model grades.

    Parameters
    ----------
    volume : Volume
    registration : Registration
    enhancement : {"stationary", "block-group", "none"}
        Form of the Haar transform; must be that which the model was trained with.

    Raises
    ------
    NotGradable
        A slice to grade lies outside the scan, or the scan has no signal.
    """
    maximum = float(sitk.GetArrayViewFromImage(volume.image).max())
    if maximum <= 0:
        raise NotGradable(Reason.NOT_A_T2_BRAIN, "no signal in the scan")
    to_index = IndexMap.of(volume.image, registration.affine)
    slices = graded_slices(volume.image, to_index)
    crops, placements = [], []
    for level, k in zip(Level, slices, strict=True):
        for side in Side:
            crop = cut(volume.image, to_index, k, side) / np.float32(maximum)
            crops.append(enhance(crop, enhancement))
            source = volume.slices[k]
            placements.append(
                Crop(
                    level=level,
                    side=side,
                    slice_index=k,
                    sop_instance_uid=source.sop_instance_uid,
                    frame_number=source.frame_number,
                    corners_px=corners(to_index, k, side),
                )
            )
    return RatingInput(np.stack(crops)[:, None], tuple(placements))
