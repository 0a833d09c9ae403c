"""Reporting: every code that the report uses, as a named constant.

Standard codes come from DICOM PS3.16, SNOMED CT, LOINC, NCIt, UMLS and UCUM. No code for enlarged
perivascular spaces (EPVS) or their rating was found in SNOMED CT, RadLex or LOINC, so these live in
the private scheme ``99EPVS``, which every SR declares in its Coding Scheme Identification Sequence.
"""

from __future__ import annotations

from typing import Final

from pydicom.sr.coding import Code

from core.records import COUNT_RANGES, Level, Severity, Side

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
"""In CID 100, as TID 1500 asks; the LOINC code for brain MRI is not."""
QUALITATIVE_EVALUATIONS: Final = Code("C0034375", "UMLS", "Qualitative Evaluations")
PROCEDURE_REPORTED: Final = Code("121058", "DCM", "Procedure reported")
CONCLUSION: Final = Code("121077", "DCM", "Conclusion")
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

# --- Where ---------------------------------------------------------------------------------------
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

# --- What ----------------------------------------------------------------------------------------
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

# --- Structure that the text rendering and the check look up -------------------------------------
IMAGING_MEASUREMENTS: Final = Code("126010", "DCM", "Imaging Measurements")
MEASUREMENT_GROUP: Final = Code("125007", "DCM", "Measurement Group")
TRACKING_IDENTIFIER: Final = Code("112039", "DCM", "Tracking Identifier")
FINDING: Final = Code("121071", "DCM", "Finding")
SOURCE_IMAGE_FOR_PROCESSING: Final = Code(
    "121322", "DCM", "Source image for image processing operation"
)
