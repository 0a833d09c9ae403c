"""The records that travel from one step of the flow to the next, one type a step.

``association → ReceivedInstance → ClosedStudy → SelectedSeries → Volume → Registration →
RatingInput + SeverityInput → RatingOutput + SeverityOutput → Grade → Report → Delivery``

All are frozen. Arrays and images travel inside one worker process only; what passes through the
broker is one opaque revision id. Patient space is DICOM's LPS in millimetres (PS3.3 C.7.6.2.1.1);
arrays are indexed (slice, row, column).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.errors import Reason

if TYPE_CHECKING:  # the receiver reads these records too and must not pay for SimpleITK
    from datetime import datetime
    from pathlib import Path

    import SimpleITK as sitk

Float32Array = NDArray[np.float32]


# --- Receiving ---------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ReceivedInstance:
    """One SOP instance, durable on disk as a Part 10 file named by its hash.

    The patient and study fields are what the study row keeps for the administrator's views; they
    never enter logs, audit details or the broker.
    """

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: Path
    sha256: str
    size_bytes: int
    calling_ae: str
    peer_address: str
    received_at: datetime
    patient_id: str = ""
    accession_number: str = ""
    study_date: str = ""
    modality: str = ""


@dataclass(frozen=True, slots=True)
class SpooledInstance:
    """One stored instance of a closed study, as a pipeline stage needs it."""

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    series_uid: str


@dataclass(frozen=True, slots=True)
class ClosedStudy:
    """A study that has been quiet long enough to be graded: one revision of it."""

    study_uid: str
    revision_id: str
    revision_number: int
    instances: tuple[SpooledInstance, ...]
    superseded_reports: tuple[tuple[str, str], ...] = ()
    """(SOP class UID, SOP instance UID) of the SRs of earlier revisions that a new one replaces."""


# --- Selecting and assembling -------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class SeriesVerdict:
    """What selection decided about one series, kept in SQL."""

    series_uid: str
    reason: Reason
    detail: str
    n_instances: int

    @property
    def selected(self) -> bool:
        """Whether this is the series that is graded."""
        return self.reason is Reason.SELECTED


@dataclass(frozen=True, slots=True)
class SliceLocation:
    """One axial slice: the file (and frame of an Enhanced MR) and where it lies."""

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
    verdicts: tuple[SeriesVerdict, ...]


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
        """Slice k of the image comes from ``slices[k]``."""
        return self.series.slices


# --- Common frame -------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Template:
    """The T2-contrast base image in MNI space (LPS mm) with the masks that the stages use."""

    t2: sitk.Image
    """float32, 1.0 CSF, 0.55 grey matter, 0.36 white matter."""
    brain_mask: sitk.Image
    """uint8; the brain with its inner CSF spaces: what remains after skull stripping."""
    basal_ganglia_mask: sitk.Image
    """uint8; the zone in which EPVS are counted."""


@dataclass(frozen=True, slots=True)
class RegistrationQuality:
    """How far the registered scan looks like a T2 brain (design: models.md section 2).

    Correlations are Pearson's, between scan and template, over a central box around the basal
    ganglia and over the brain; coverage is the share of the box inside the scan; scale is the
    cube root of the affine's determinant.
    """

    box_correlation: float
    brain_correlation: float
    coverage: float
    scale: float


@dataclass(frozen=True, slots=True)
class Registration:
    """T2 → MNI. Both transforms map MNI points (LPS mm) to patient points (LPS mm)."""

    affine: sitk.Transform
    rigid: sitk.Transform
    """Polar projection of the affine: the same pose without scaling or shear."""
    quality: RegistrationQuality


# --- Model inputs -------------------------------------------------------------------------------
class Level(StrEnum):
    """The three graded slices, upward from the anterior commissure."""

    INFERIOR = "inferior"
    MIDDLE = "middle"
    SUPERIOR = "superior"


class Side(StrEnum):
    """The patient's side."""

    LEFT = "L"
    RIGHT = "R"


@dataclass(frozen=True, slots=True)
class Crop:
    """Where one of the six basal-ganglia images was taken."""

    level: Level
    side: Side
    slice_index: int
    sop_instance_uid: str
    frame_number: int | None
    corners_px: tuple[tuple[float, float], ...]
    """Four corners as (column, row) in the native slice; 0-based, pixel centres at integers."""


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


# --- Model outputs ------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which weights answered; part of every result and of its UIDs."""

    name: str
    version: str
    """Triton's version folder, e.g. ``"1"``."""
    weights_sha256: str
    display_name: str
    """For people and for Algorithm Name in the SR."""
    training_data: str
    """``"synthetic"`` or what the model card says."""


@dataclass(frozen=True, slots=True)
class RatingOutput:
    """What the rating model answered: `probabilities`, shape (6, 5), float32, rows sum to 1."""

    probabilities: Float32Array
    model: ModelIdentity


@dataclass(frozen=True, slots=True)
class SeverityOutput:
    """What the severity model answered.

    Attributes
    ----------
    probability : float
        P(at least ten EPVS).
    saliency : ndarray, shape (depth, height, width), float32
        Grad-CAM on the last feature map, ≥ 0, not normalised; it spans the input grid.
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
    mean, skewness, share_above_7, share_in_basal_ganglia : float
        Of the activation over the brain inside the model's field of view.
    """

    image: sitk.Image
    mean: float
    skewness: float
    share_above_7: float
    share_in_basal_ganglia: float


# --- Grade --------------------------------------------------------------------------------------
COUNT_RANGES: tuple[str, ...] = ("0", "1-10", "11-20", "21-40", ">40")
"""EPVS counts behind ratings 0 to 4 (rating paper, Table 2)."""


class Severity(StrEnum):
    """The severity model's two classes."""

    NONE_TO_MILD = "none-to-mild"
    MODERATE_TO_SEVERE = "moderate-to-severe"


@dataclass(frozen=True, slots=True)
class ImageRating:
    """The grade of one of the six images."""

    crop: Crop
    rating: int
    probability: float
    """Of the assigned rating."""


@dataclass(frozen=True, slots=True)
class Grade:
    """Both models' reading of one study revision."""

    images: tuple[ImageRating, ...]
    rating: int
    """Highest of the six images (rating paper, section 2.5)."""
    majority_rating: int
    """Most frequent of the six; the higher one where two are equally frequent."""
    confidence: float
    """Probability that the highest of the six images is `rating`."""
    severity: Severity
    severity_probability: float
    models_agree: bool
    """rating ≥ 2 exactly when severity is moderate-to-severe."""
    rating_model: ModelIdentity
    severity_model: ModelIdentity

    @property
    def count_range(self) -> str:
        """EPVS count behind the rating, e.g. ``"11-20"``."""
        return COUNT_RANGES[self.rating]


# --- Results ------------------------------------------------------------------------------------
class ObjectKind(StrEnum):
    """What an object written back to the PACS is."""

    PARAMETRIC_MAP = "pm"
    SECONDARY_CAPTURE = "sc"
    STRUCTURED_REPORT = "sr"


@dataclass(frozen=True, slots=True)
class ReportObject:
    """One DICOM object of a report; `content` is the exact Part 10 file that is kept and sent."""

    kind: ObjectKind
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    transfer_syntax_uid: str
    content: bytes
    refers_to: tuple[str, ...] = ()
    """SOP Instance UIDs of what else in the report it refers to: it goes nowhere without them."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything written back for one revision, in the order of sending."""

    objects: tuple[ReportObject, ...]
    summary: str
    """The report as readable text, without patient data."""


@dataclass(frozen=True, slots=True)
class StageTiming:
    """Wall-clock seconds of one pipeline stage."""

    stage: str
    seconds: float


@dataclass(frozen=True, slots=True)
class GradedStudy:
    """What the pipeline hands to the database: the grade, the report, and how it was reached."""

    revision_id: str
    series: SelectedSeries
    quality: RegistrationQuality
    grade: Grade
    saliency: SaliencyMap
    report: Report
    timings: tuple[StageTiming, ...]
