"""The records that the pipeline stages pass on, inside one worker process.

``ClosedStudy → Selection → Volume → Registration → RatingInput + SeverityInput →
RatingOutput + SeverityOutput → Grade + SaliencyMap → Report``

All are frozen. Patient space is DICOM's LPS in millimetres (PS3.3 C.7.6.2.1.1); arrays are indexed
(slice, row, column).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.errors import Failed
from core.reasons import Reason
from worker.grading.errors import NotGradable

if TYPE_CHECKING:
    from datetime import datetime, timezone
    from pathlib import Path

    import SimpleITK as sitk
    from pydicom.dataset import Dataset

    from core.results import (
        Crop,
        ModelIdentity,
        RegistrationQuality,
        SaliencyStatistics,
        SeriesVerdict,
    )

Float32Array = NDArray[np.float32]


# --- Selecting and assembling -------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class SliceLocation:
    """One axial slice: its file (and frame of an Enhanced MR) and its position."""

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    frame_number: int | None
    """1-based frame of an Enhanced MR instance; None for a classic instance."""
    position_mm: tuple[float, float, float]
    """Image Position (Patient), LPS, centre of the first pixel."""


@dataclass(frozen=True, slots=True)
class SelectedSeries:
    """The axial T2 series to grade, its slices sorted along the normal (inferior to superior)."""

    study_uid: str
    series_uid: str
    slices: tuple[SliceLocation, ...]
    orientation: tuple[float, float, float, float, float, float]
    """Image Orientation (Patient): direction of a row, then of a column."""
    pixel_spacing_mm: tuple[float, float]
    """(between rows, between columns), as Pixel Spacing."""
    slice_spacing_mm: float
    """Distance between slice centres along the normal."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The verdict on each series of a study, and the series to grade or why there is none.

    Attributes
    ----------
    series : SelectedSeries or None
        None where no series can be graded.
    reason, detail : Reason, str
        Of the study as a whole: `Reason.SELECTED`, or why no series can be graded.
    """

    verdicts: tuple[SeriesVerdict, ...]
    series: SelectedSeries | None
    reason: Reason = Reason.SELECTED
    detail: str = ""

    def require_series(self) -> SelectedSeries:
        """Return the series to grade.

        Raises
        ------
        NotGradable
            No series of the study can be graded.
        """
        if self.series is None:
            raise NotGradable(self.reason, self.detail)
        return self.series


@dataclass(frozen=True, slots=True)
class Volume:
    """The selected series as one image in patient space.

    Attributes
    ----------
    image : SimpleITK.Image
        float32, LPS mm; index (column, row, slice), slices from inferior to superior.
    slices : tuple of SliceLocation
        ``slices[k]`` is slice k of `image`.
    """

    image: sitk.Image
    series: SelectedSeries

    @property
    def slices(self) -> tuple[SliceLocation, ...]:
        """Location of each slice; ``slices[k]`` is slice k of `image`."""
        return self.series.slices


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One graded SOP instance with the attributes for references and the image library."""

    sop_class_uid: str
    sop_instance_uid: str
    rows: int
    columns: int
    slice_thickness_mm: float | None
    position_mm: tuple[float, float, float] | None
    """None for a multi-frame instance, whose frames have different positions."""


@dataclass(frozen=True, slots=True)
class StudyHeader:
    """Patient, study and time zone that every report copies.

    Attributes
    ----------
    patient_and_study : Dataset
        Patient and General Study attributes to write, with their character set.
    utc_offset : timezone or None
        Timezone Offset From UTC, if the source states it.
    """

    patient_and_study: Dataset
    utc_offset: timezone | None

    def local(self, moment: datetime) -> datetime:
        """Convert `moment` to the time zone of the study's dates and times, if it is stated."""
        return moment.astimezone(self.utc_offset) if self.utc_offset else moment


@dataclass(frozen=True, slots=True)
class Source(StudyHeader):
    """Header attributes of the graded series and its study.

    Attributes
    ----------
    images : tuple of SourceImage
        One for each SOP instance, in the order of the volume's slices.
    frame_of_reference_uid : str or None
    """

    images: tuple[SourceImage, ...]
    frame_of_reference_uid: str | None


@dataclass(frozen=True, slots=True)
class Reading:
    """All that grading takes from the files of a study.

    Attributes
    ----------
    selection : Selection
    header : StudyHeader or None
        A `Source` if `voxels` are there; None if no instance can be read.
    voxels : ndarray, shape (slices, rows, columns), float32, or None
        Of the selected series; None if there is none or its slices cannot be decoded.
    refusal : tuple of (Reason, str) or None
        Why the slices of the selected series cannot be decoded: reason and figures.
    """

    selection: Selection
    header: StudyHeader | None
    voxels: Float32Array | None = None
    refusal: tuple[Reason, str] | None = None

    def require_slices(self) -> tuple[SelectedSeries, Float32Array, Source]:
        """Return the series to grade, its voxels and the headers of its images.

        Raises
        ------
        NotGradable
            No series of the study can be graded.
        """
        series = self.selection.require_series()
        if self.refusal is not None:
            raise NotGradable(*self.refusal)
        if self.voxels is None or not isinstance(self.header, Source):
            raise Failed("reading-incomplete", "The slices of the selected series are missing.")
        return series, self.voxels, self.header


# --- Registration -------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Template:
    """The T2-contrast base image in MNI space (LPS mm) with the masks that the stages use."""

    t2: sitk.Image
    """float32, 1.0 CSF, 0.55 grey matter, 0.36 white matter."""
    brain_mask: sitk.Image
    """uint8; the brain with its ventricles: what remains after skull stripping."""
    basal_ganglia_mask: sitk.Image
    """uint8; the zone in which EPVS are counted."""


@dataclass(frozen=True, slots=True)
class Registration:
    """T2 → MNI. Both transforms map MNI points (LPS mm) to patient points (LPS mm)."""

    affine: sitk.Transform
    rigid: sitk.Transform
    """Polar projection of the affine: the same pose without scaling or shear."""
    quality: RegistrationQuality


# --- Models -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class RatingInput:
    """Input of the rating model.

    Attributes
    ----------
    crops : ndarray, shape (6, 1, 112, 86), float32
        Haar-enhanced, 0–1; 0.465 mm pixels; the order of `placements`.
    placements : tuple of Crop
        Inferior L, inferior R, middle L, middle R, superior L, superior R.
    """

    crops: Float32Array
    placements: tuple[Crop, ...]


@dataclass(frozen=True, slots=True)
class SeverityInput:
    """Input of the severity model.

    Attributes
    ----------
    volume : ndarray, shape (1, 1, 16, 512, 512), float32
        Window of the skull-stripped, z-scored scan, 0–1.
    grid : SimpleITK.Image
        The 16 × 512 × 512 grid in MNI space (its geometry; voxel values are those of `volume`).
    rigid : SimpleITK.Transform
        From `grid`'s space to patient space.
    """

    volume: Float32Array
    grid: sitk.Image
    rigid: sitk.Transform


@dataclass(frozen=True, slots=True)
class RatingOutput:
    """Prediction of the rating model: `probabilities`, shape (6, 5), float32, rows sum to 1."""

    probabilities: Float32Array
    model: ModelIdentity


@dataclass(frozen=True, slots=True)
class SeverityOutput:
    """Prediction of the severity model.

    Attributes
    ----------
    probability : float
        P(at least ten EPVS).
    saliency : ndarray, shape (depth, height, width), float32
        Grad-CAM of the last feature map, ≥ 0, not normalised; it covers the input grid.
    """

    probability: float
    saliency: Float32Array
    model: ModelIdentity


@dataclass(frozen=True, slots=True)
class SaliencyMap:
    """Grad-CAM in patient space.

    Attributes
    ----------
    image : SimpleITK.Image
        float32, 0–10, on the grid of the `Volume`; 10 is the highest activation in the brain inside
        the model's field of view, and outside that brain it is 0.
    statistics : SaliencyStatistics
        Of the activation over the brain inside the model's field of view.
    """

    image: sitk.Image
    statistics: SaliencyStatistics


@dataclass(frozen=True, slots=True)
class ModelRun:
    """What both models were given for one study, and what they predicted.

    Kept until the result is stored, so that shadow versions can be given the same.
    """

    volume: Volume
    registration: Registration
    rating_input: RatingInput
    rating_output: RatingOutput
    severity_input: SeverityInput
    severity_output: SeverityOutput
