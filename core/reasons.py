"""Reason codes of series verdicts and of studies that are not graded, stored in SQL and SR."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a series was not selected, or why a study is not graded."""

    SELECTED = "selected"
    LESS_SUITABLE = "less-suitable"
    """Meets all requirements, but another series of the study is preferred."""

    # The kind of series
    NO_IMAGES = "no-images"
    NOT_MR = "not-mr"
    DERIVED = "derived"
    LOCALIZER = "localizer"
    MOSAIC = "mosaic"
    PHASE = "phase-image"
    DIFFUSION = "diffusion"
    ECHO_PLANAR = "echo-planar"
    INVERSION_RECOVERY = "inversion-recovery"
    GRADIENT_ECHO = "gradient-echo"
    NOT_T2_WEIGHTED = "not-t2-weighted"
    SEVERAL_ECHOES = "several-echoes"
    NOT_AXIAL = "not-axial"

    # How it was acquired and stored
    UNREADABLE = "unreadable-header"
    MISSING_GEOMETRY = "missing-geometry"
    TOO_FEW_SLICES = "too-few-slices"
    MIXED_ORIENTATION = "mixed-orientation"
    DUPLICATE_POSITIONS = "duplicate-positions"
    MISSING_SLICE = "missing-slice"
    IRREGULAR_SPACING = "irregular-spacing"
    GANTRY_TILT = "gantry-tilt"
    SLICES_TOO_THICK = "slices-too-thick"
    PIXELS_TOO_COARSE = "pixels-too-coarse"
    INCONSISTENT_MATRIX = "inconsistent-matrix"
    INCONSISTENT_RESCALE = "inconsistent-rescale"
    UNDECODABLE_PIXELS = "undecodable-pixels"
    READING_LIMIT = "reading-limit"
    """Reading the files took more time or memory than any real study, or crashed a decoder."""

    # The contents of the image
    NOT_A_T2_BRAIN = "not-a-t2-brain"
    """The quality check of the registration found no T2-weighted brain."""
    OUTSIDE_FIELD_OF_VIEW = "outside-field-of-view"
    """The basal ganglia are not completely inside the scan."""

    NO_SUITABLE_SERIES = "no-suitable-series"
