"""Results of grading a study: verdicts, quality figures, grade and report objects.

The worker fills these records and the database stores them. Arrays and images never leave the
worker process; their records are in `worker.grading.records`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class SeriesVerdict:
    """Decision of series selection about one series, stored in SQL."""

    series_uid: str
    reason: Reason
    detail: str
    n_instances: int

    @property
    def selected(self) -> bool:
        """Whether this is the series to grade."""
        return self.reason is Reason.SELECTED


@dataclass(frozen=True, slots=True)
class RegistrationQuality:
    """Agreement of the registered scan with a T2-weighted brain.

    Correlations are Pearson's, between scan and template, over a central box around the basal
    ganglia and over the brain; coverage is the share of the box inside the scan; scale is the
    cube root of the affine's determinant.
    """

    box_correlation: float
    brain_correlation: float
    coverage: float
    scale: float


# --- Grade --------------------------------------------------------------------------------------
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
    """Position of one of the six basal-ganglia images in the series."""

    level: Level
    side: Side
    slice_index: int
    sop_instance_uid: str
    frame_number: int | None
    corners_px: tuple[tuple[float, float], ...]
    """Four corners as (column, row) in the native slice; 0-based, pixel centres at integers."""


_STATEMENT_LENGTH: Final = 400
"""Longest intended use statement, in characters: two of them still fit on a picture."""


@dataclass(frozen=True, slots=True)
class IntendedUse:
    """What a model may be used for, as its ``model.json`` states it.

    Attributes
    ----------
    statement : str
        Repeated wherever a grade is shown: SR, pictures, SQL, HL7, command line.
    research_only : bool
        Whether the Series Descriptions of the report objects say "RESEARCH USE ONLY".
    """

    statement: str
    research_only: bool


def parse_statement(text: object) -> str:
    """Return the intended use statement of a model without surrounding spaces.

    Raises
    ------
    ValueError
        It is empty, too long, or not printable ASCII. A study's character set or the typeface of
        the pictures may lack other characters.
    """
    statement = text.strip() if isinstance(text, str) else ""
    if not statement:
        raise ValueError("the intended use is empty")
    if not (statement.isascii() and statement.isprintable()):
        raise ValueError("the intended use is not one line of printable ASCII characters")
    if len(statement) > _STATEMENT_LENGTH:
        raise ValueError(f"the intended use is longer than {_STATEMENT_LENGTH} characters")
    return statement


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which weights made a prediction; part of every result and of its UIDs."""

    name: str
    version: str
    """Triton's version folder, e.g. ``"1"``."""
    weights_sha256: str
    display_name: str
    """For display, and Algorithm Name in the SR."""
    training_data: str
    """``"synthetic"`` or ``"site cohort"``."""
    intended_use: IntendedUse


def combine_intended_use(models: Sequence[ModelIdentity]) -> IntendedUse:
    """Intended use of a result to which several models contributed.

    A statement that all models share is made once. Where they differ, each is preceded by the name
    of its model. The result is for research only if that holds for any of the models.
    """
    research_only = any(model.intended_use.research_only for model in models)
    first, *others = dict.fromkeys(model.intended_use.statement for model in models)
    if not others:
        return IntendedUse(first, research_only)
    return IntendedUse(
        " ".join(f"{model.display_name}: {model.intended_use.statement}" for model in models),
        research_only,
    )


COUNT_RANGES: tuple[str, ...] = ("0", "1-10", "11-20", "21-40", ">40")
"""EPVS counts that define ratings 0 to 4 (rating paper, Table 2)."""


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
    """Results of both models for one study revision."""

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
    def intended_use(self) -> IntendedUse:
        """Intended use of both models together."""
        return combine_intended_use((self.rating_model, self.severity_model))

    @property
    def count_range(self) -> str:
        """EPVS count of the rating, e.g. ``"11-20"``."""
        return COUNT_RANGES[self.rating]


@dataclass(frozen=True, slots=True)
class SaliencyStatistics:
    """Distribution of the Grad-CAM activation over the brain inside the model's field of view.

    Attributes
    ----------
    mean : float
        Mean activation, 0–10.
    skewness : float
        0 if the activation is uniform.
    share_above_7 : float
        Share of voxels with an activation above 7, 0–1.
    share_in_basal_ganglia : float
        Share of the total activation that lies in the basal ganglia, 0–1.
    """

    mean: float
    skewness: float
    share_above_7: float
    share_in_basal_ganglia: float


# --- Report -------------------------------------------------------------------------------------
class ObjectKind(StrEnum):
    """Kind of a DICOM object written back to the PACS."""

    PARAMETRIC_MAP = "pm"
    SECONDARY_CAPTURE = "sc"
    STRUCTURED_REPORT = "sr"


class SRClass(StrEnum):
    """SOP class of an SR (PS3.4 B.5); the content is the same in both."""

    COMPREHENSIVE = "comprehensive"
    COMPREHENSIVE_3D = "comprehensive3d"


class SRVariant(NamedTuple):
    """One of the forms in which the SR of a study is built; destinations differ in what they take.

    Attributes
    ----------
    sr_class : SRClass
    parametric_map : bool
        Whether the SR refers to the parametric map. Only a destination that is also sent the map
        may receive such an SR: in any other archive the reference would dangle.
    """

    sr_class: SRClass
    parametric_map: bool


@dataclass(frozen=True, slots=True)
class ReportObject:
    """One DICOM object of a report; `content` is the exact Part 10 file that is stored and sent."""

    kind: ObjectKind
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    transfer_syntax_uid: str
    content: bytes
    variant: SRVariant | None = None
    """Of an SR; None for pictures and the map."""


@dataclass(frozen=True, slots=True)
class ReportIdentity:
    """Study and patient that the objects of a report state.

    They were read from the files of the study. Before a report is stored, they are compared with
    the study's row, which the receiver wrote.
    """

    study_uid: str
    patient_id: str
    """Patient ID (0010,0020); empty if the graded instances have none."""
    accession_number: str
    """Accession Number (0008,0050), or empty."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything built for one revision: map, pictures and SRs, in the order of sending."""

    objects: tuple[ReportObject, ...]
    summary: str
    """The report as readable text, without patient data."""
    identity: ReportIdentity


@dataclass(frozen=True, slots=True)
class StageTiming:
    """Wall-clock seconds of one pipeline stage."""

    stage: str
    seconds: float


@dataclass(frozen=True, slots=True)
class GradedStudy:
    """Result of a study revision that was graded."""

    revision_id: str
    series_uid: str
    """Series Instance UID of the series that was graded."""
    verdicts: tuple[SeriesVerdict, ...]
    quality: RegistrationQuality
    grade: Grade
    saliency: SaliencyStatistics
    report: Report
    timings: tuple[StageTiming, ...]


@dataclass(frozen=True, slots=True)
class ReportFailure:
    """Why the report on a study that was not graded could not be built."""

    code: str
    """Short kebab-case code, e.g. ``"no-readable-header"``."""
    message: str


@dataclass(frozen=True, slots=True)
class NotGradedStudy:
    """Result of a study revision that cannot be graded: a retry would not change it.

    It is stored in the state ``rejected``.
    """

    revision_id: str
    reason: Reason
    detail: str
    """The figures behind the reason, e.g. ``"gap of 7.5 mm after slice 11 (others 2.5 mm)"``."""
    verdicts: tuple[SeriesVerdict, ...] = ()
    """One for each series of the study."""
    timings: tuple[StageTiming, ...] = ()
    """Of the stages that finished."""
    report: Report | None = None
    """None if no destination asks for it or if it could not be built."""
    report_failure: ReportFailure | None = None
    """Set if a destination asks for a report that could not be built."""


@dataclass(frozen=True, slots=True)
class ShadowFailure:
    """Why a shadow version predicted nothing for a study."""

    code: str
    """Short kebab-case code, e.g. ``"golden-mismatch"``."""
    message: str


@dataclass(frozen=True, slots=True)
class ShadowRating:
    """What a shadow version of the rating model predicted."""

    identity: ModelIdentity
    images: tuple[ImageRating, ...]
    rating: int
    majority_rating: int
    probability: float


@dataclass(frozen=True, slots=True)
class ShadowSeverity:
    """What a shadow version of the severity model predicted."""

    identity: ModelIdentity
    severity: Severity
    probability: float


@dataclass(frozen=True, slots=True)
class ShadowResult:
    """What became of one shadow version for one graded study; stored, never reported."""

    model: str
    version: str
    outcome: ShadowRating | ShadowSeverity | ShadowFailure
    seconds: float
