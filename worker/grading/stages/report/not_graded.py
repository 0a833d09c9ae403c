"""Reporting: the SR (TID 1500) of a study revision that was not graded: that it was not, and why.

It has no imaging measurements: a search for findings or grades must not return it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from highdicom.sr import CodeContentItem, TextContentItem
from highdicom.sr import RelationshipTypeValues as Relationship
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from worker.grading.stages.report import codes
from worker.grading.stages.report.library import plain_image_library
from worker.grading.stages.report.measurement_report import (
    SRClass,
    evidence_item,
    qualitative_evaluations,
    write_sr,
)

if TYPE_CHECKING:
    from core.reasons import Reason
    from core.results import NotGradedStudy, ReportObject
    from core.studies import ClosedStudy, SpooledInstance
    from worker.grading.stages.report.document import RejectedCase

SERIES_DESCRIPTION: Final = "EPVS not graded (RESEARCH USE ONLY)"

_MR_CLASSES: Final = (MRImageStorage, EnhancedMRImageStorage)
_SPELLED_OUT: Final = str.maketrans({"×": "x", "°": " degrees"})
"""The report is written in the study's character set, which may have no such signs."""


def build_not_graded_sr(case: RejectedCase, sr: SRClass) -> ReportObject:
    """Build the SR.

    Parameters
    ----------
    case : RejectedCase
    sr : {"comprehensive", "comprehensive3d"}
        SOP class; the content is the same.

    Notes
    -----
    The image library lists the images of the series that the reason is about, if it is about one.
    The evidence lists every instance of the study: that none of them can be graded is the result
    (PS3.3 C.17.2: all instances of the procedure that the creator is aware of).
    """
    why: list[CodeContentItem | TextContentItem] = [
        CodeContentItem(codes.NOT_GRADED, codes.REASONS[case.reason], Relationship.CONTAINS)
    ]
    if case.detail:
        why.append(TextContentItem(codes.COMMENT, _plain(case.detail), Relationship.CONTAINS))
    return write_sr(
        case,
        sr,
        uid=case.uid("not-graded-sr-instance", sr=sr),
        sections=[
            *([plain_image_library(case.images)] if case.images else []),
            qualitative_evaluations(why, conclusion(case.reason)),
        ],
        evidence=[
            evidence_item(case, i.sop_class_uid, i.sop_instance_uid, i.series_uid)
            for i in case.study.instances
        ],
        description=SERIES_DESCRIPTION,
    )


def conclusion(reason: Reason) -> str:
    """Say why there is no grade in the sentences that a reader takes from the report."""
    return (
        "Enlarged perivascular spaces (EPVS) were not graded. "
        f"Reason: {codes.REASONS[reason].meaning}. "
        "That there is no grade says nothing about whether EPVS are present."
    )


def images_concerned(study: ClosedStudy, result: NotGradedStudy) -> tuple[SpooledInstance, ...]:
    """Find the MR images of the one series that the reason is about; empty if it is about several.

    It is the series whose own verdict is that of the study.
    """
    series = [
        verdict.series_uid
        for verdict in result.verdicts
        if (verdict.reason, verdict.detail) == (result.reason, result.detail)
    ]
    if len(series) != 1:
        return ()
    return tuple(
        instance
        for instance in study.instances
        if instance.series_uid == series[0] and instance.sop_class_uid in _MR_CLASSES
    )


def _plain(text: str) -> str:
    """`text` in printable ASCII: a detail may quote what a hostile file says of itself."""
    spelled_out = text.translate(_SPELLED_OUT)
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in spelled_out)
