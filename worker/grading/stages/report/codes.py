"""Coded concepts of the report objects, as named constants.

Standard codes come from DICOM PS3.16, SNOMED CT, LOINC, NCIt, UMLS and UCUM. SNOMED CT, RadLex and
LOINC have no codes for enlarged perivascular spaces (EPVS) or their rating. These codes belong to
the private scheme ``99EPVS``, which every SR declares in its Coding Scheme Identification Sequence.
"""

from __future__ import annotations

from typing import Final

from pydicom.sr.coding import Code

from core.reasons import Reason
from core.results import COUNT_RANGES, Level, Severity, Side

SCHEME: Final = "99EPVS"
SCHEME_NAME: Final = "EPVS grading, private codes"
SCHEME_VERSION: Final = "1"

CODE_VALUE_LENGTH: Final = 16
"""Longest Code Value (VR SH, PS3.5 section 6.2)."""
CODE_MEANING_LENGTH: Final = 64
"""Longest Code Meaning (VR LO)."""


def _private(value: str, meaning: str) -> Code:
    return Code(value, SCHEME, meaning)


# --- The document --------------------------------------------------------------------------------
REPORT_TITLE: Final = Code("126000", "DCM", "Imaging Measurement Report")
ENGLISH: Final = Code("en-US", "RFC5646", "English (United States)")
DEVICE_OBSERVER: Final = Code("121007", "DCM", "Device")
MRI_PROCEDURE: Final = Code("25056-3", "LN", "MRI unspecified body region")
"""In CID 100, as TID 1500 requires; the LOINC code for brain MRI is not in it."""
QUALITATIVE_EVALUATIONS: Final = Code("C0034375", "UMLS", "Qualitative Evaluations")
PROCEDURE_REPORTED: Final = Code("121058", "DCM", "Procedure reported")
CONCLUSION: Final = Code("121077", "DCM", "Conclusion")
COMMENT: Final = Code("121106", "DCM", "Comment")
INTENDED_USE: Final = _private("INTENDEDUSE", "Intended use statement")
PROCESSING_EQUIPMENT: Final = Code("109102", "DCM", "Processing Equipment")

# --- Image library (TID 1600 to 1604) ------------------------------------------------------------
IMAGE_LIBRARY: Final = Code("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP: Final = Code("126200", "DCM", "Image Library Group")
SOURCE: Final = Code("260753009", "SCT", "Source")
MODALITY: Final = Code("121139", "DCM", "Modality")
MAGNETIC_RESONANCE: Final = Code("MR", "DCM", "Magnetic Resonance")
FRAME_OF_REFERENCE_UID: Final = Code("112227", "DCM", "Frame of Reference UID")
PIXEL_DATA_ROWS: Final = Code("110910", "DCM", "Pixel Data Rows")
PIXEL_DATA_COLUMNS: Final = Code("110911", "DCM", "Pixel Data Columns")
HORIZONTAL_PIXEL_SPACING: Final = Code("111026", "DCM", "Horizontal Pixel Spacing")
VERTICAL_PIXEL_SPACING: Final = Code("111066", "DCM", "Vertical Pixel Spacing")
SLICE_THICKNESS: Final = Code("112225", "DCM", "Slice Thickness")
IMAGE_POSITION: Final = tuple(
    Code(str(110901 + i), "DCM", f"Image Position (Patient) {axis}") for i, axis in enumerate("XYZ")
)
IMAGE_ORIENTATION: Final = tuple(
    Code(str(110904 + i), "DCM", f"Image Orientation (Patient) {component}")
    for i, component in enumerate(
        ("Row X", "Row Y", "Row Z", "Column X", "Column Y", "Column Z"),
    )
)

# --- Units ---------------------------------------------------------------------------------------
NO_UNITS: Final = Code("1", "UCUM", "no units")
MILLIMETRE: Final = Code("mm", "UCUM", "millimeter")
PIXELS: Final = Code("{pixels}", "UCUM", "Pixels")
DIRECTION_COSINE: Final = Code("{-1:1}", "UCUM", "{-1:1}")

# --- Anatomy -------------------------------------------------------------------------------------
BASAL_GANGLIA: Final = Code("32610002", "SCT", "Basal ganglion structure")
BILATERAL: Final = Code("51440002", "SCT", "Bilateral")
LATERALITY: Final = {
    Side.LEFT: Code("7771000", "SCT", "Left"),
    Side.RIGHT: Code("24028007", "SCT", "Right"),
}
LEVEL: Final = {
    Level.INFERIOR: Code("261089000", "SCT", "Inferior"),
    Level.MIDDLE: Code("C25569", "NCIt", "Middle"),
    Level.SUPERIOR: Code("264217000", "SCT", "Superior"),
}

# --- Findings ------------------------------------------------------------------------------------
EPVS: Final = _private("EPVS", "Enlarged perivascular space")
PRESENT: Final = Code("52101004", "SCT", "Present")
ABSENT: Final = Code("272519000", "SCT", "Absent")

RATING: Final = _private("EPVSBGRATING", "EPVS rating, basal ganglia (0-4)")
HIGHEST_RATING: Final = _private("EPVSBGRATINGMAX", "EPVS rating, basal ganglia, highest of images")
MAJORITY_RATING: Final = _private("EPVSBGRATINGMAJ", "EPVS rating, basal ganglia, majority vote")
RATINGS: Final = tuple(
    _private(f"EPVS{rating}", f"EPVS rating {rating} ({'none' if rating == 0 else count_range})")
    for rating, count_range in enumerate(COUNT_RANGES)
)
RATING_PROBABILITY: Final = _private("EPVSPRATING", "Probability of assigned EPVS rating")

SEVERITY: Final = _private("EPVSBGSEV2", "EPVS severity, basal ganglia (2 classes)")
SEVERITIES: Final = {
    Severity.NONE_TO_MILD: _private("EPVSNTM", "None-to-mild EPVS (<10)"),
    Severity.MODERATE_TO_SEVERE: _private("EPVSMTS", "Moderate-to-severe EPVS (>=10)"),
}
SEVERITY_PROBABILITY: Final = _private("EPVSPMTS", "Probability of moderate-to-severe EPVS (>=10)")

AGREEMENT: Final = _private("EPVSAGREEMENT", "Agreement of EPVS rating and EPVS severity")
AGREE: Final = _private("EPVSAGREE", "Rating and severity agree")
DISAGREE: Final = _private("EPVSDISAGREE", "Rating and severity disagree")
NOT_GRADED: Final = _private("EPVSNOTGRADED", "Reason why EPVS were not graded")

# --- Reasons for not grading a study -------------------------------------------------------------
REASONS: Final = {
    # Kind of series
    Reason.NO_IMAGES: _private("NGNOIMAGES", "No images"),
    Reason.NOT_MR: _private("NGNOTMR", "Not MR images"),
    Reason.DERIVED: _private("NGDERIVED", "Series with derived images"),
    Reason.LOCALIZER: _private("NGLOCALIZER", "Localizer series"),
    Reason.MOSAIC: _private("NGMOSAIC", "Series with mosaic images"),
    Reason.PHASE: _private("NGPHASE", "Series with phase images"),
    Reason.DIFFUSION: _private("NGDIFFUSION", "Series with diffusion-weighted images"),
    Reason.ECHO_PLANAR: _private("NGECHOPLANAR", "Series with echo-planar images"),
    Reason.INVERSION_RECOVERY: _private(
        "NGINVERSION", "Series with inversion recovery images, for example FLAIR"
    ),
    Reason.GRADIENT_ECHO: _private("NGGRADIENTECHO", "Series not stated to be spin echo"),
    Reason.NOT_T2_WEIGHTED: _private(
        "NGNOTT2", "Series not T2-weighted by echo and repetition time"
    ),
    Reason.SEVERAL_ECHOES: _private("NGECHOES", "Series with several echoes"),
    Reason.NOT_AXIAL: _private("NGNOTAXIAL", "Series not axial"),
    # Acquisition and storage
    Reason.UNREADABLE: _private("NGUNREADABLE", "Image headers cannot be read"),
    Reason.MISSING_GEOMETRY: _private(
        "NGNOGEOMETRY", "Position, orientation or pixel size of slices is missing"
    ),
    Reason.TOO_FEW_SLICES: _private("NGFEWSLICES", "Too few slices"),
    Reason.MIXED_ORIENTATION: _private("NGORIENTATION", "Slices of the series are not parallel"),
    Reason.DUPLICATE_POSITIONS: _private("NGDUPLICATE", "Several slices at one position"),
    Reason.MISSING_SLICE: _private("NGMISSINGSLICE", "Slices are missing"),
    Reason.IRREGULAR_SPACING: _private("NGSPACING", "Slices are not evenly spaced"),
    Reason.GANTRY_TILT: _private("NGTILT", "Slices are not stacked along their normal"),
    Reason.SLICES_TOO_THICK: _private("NGTHICK", "Slices lie too far apart"),
    Reason.PIXELS_TOO_COARSE: _private("NGCOARSE", "Pixels are too large"),
    Reason.INCONSISTENT_MATRIX: _private(
        "NGMATRIX", "Matrix or pixel size of slices differs or is implausible"
    ),
    Reason.INCONSISTENT_RESCALE: _private(
        "NGRESCALE", "Rescale values of slices differ or are implausible"
    ),
    Reason.UNDECODABLE_PIXELS: _private("NGPIXELDATA", "Pixel data cannot be decoded"),
    Reason.READING_LIMIT: _private("NGREADING", "Files cannot be read within limits"),
    # Content of the pixels
    Reason.NOT_A_T2_BRAIN: _private("NGNOTBRAIN", "Series does not look like a T2-weighted brain"),
    Reason.OUTSIDE_FIELD_OF_VIEW: _private(
        "NGFIELDOFVIEW", "Basal ganglia are outside the field of view"
    ),
    # The study as a whole
    Reason.NO_SUITABLE_SERIES: _private("NGNOSERIES", "No suitable axial T2-weighted series"),
}

# --- Saliency ------------------------------------------------------------------------------------
GRAD_CAM: Final = Code("130403", "DCM", "Gradient-weighted class activation")
MEAN: Final = Code("373098007", "SCT", "Mean")
SKEWNESS: Final = Code("126051", "DCM", "Skewness")
SHARE_ABOVE_7: Final = _private("FRACGT7", "Fraction of voxels above 7")
SHARE_IN_BASAL_GANGLIA: Final = _private("FRACBG", "Fraction of activation in the basal ganglia")

# --- Algorithms ----------------------------------------------------------------------------------
ARTIFICIAL_INTELLIGENCE: Final = Code("123110", "DCM", "Artificial Intelligence")
ALGORITHM_NAME: Final = Code("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION: Final = Code("111003", "DCM", "Algorithm Version")
ALGORITHM_PARAMETERS: Final = Code("111002", "DCM", "Algorithm Parameters")

# --- Document structure, as used by the text rendering and the check -----------------------------
IMAGING_MEASUREMENTS: Final = Code("126010", "DCM", "Imaging Measurements")
MEASUREMENT_GROUP: Final = Code("125007", "DCM", "Measurement Group")
TRACKING_IDENTIFIER: Final = Code("112039", "DCM", "Tracking Identifier")
FINDING: Final = Code("121071", "DCM", "Finding")
SOURCE_IMAGE_FOR_PROCESSING: Final = Code(
    "121322", "DCM", "Source image for image processing operation"
)
