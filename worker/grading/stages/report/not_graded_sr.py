"""SR stating that a study revision was not graded, with the reason (TID 1500).

It has no imaging measurements, so that a search for findings or grades does not return it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from highdicom.sr import CodeContentItem, TextContentItem
from highdicom.sr import RelationshipTypeValues as Relationship
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from worker.grading.stages.report import codes
from worker.grading.stages.report.image_library import plain_image_library
from worker.grading.stages.report.sr_document import (
    evidence_item,
    qualitative_evaluations,
    write_sr,
)

if TYPE_CHECKING:
    from core.reasons import Reason
    from core.results import NotGradedStudy, ReportObject, SRVariant
    from core.studies import ClosedStudy, SpooledInstance
    from worker.grading.stages.report.context import NotGradedContext

SERIES_DESCRIPTION: Final = "EPVS not graded"

_MR_CLASSES: Final = (MRImageStorage, EnhancedMRImageStorage)
_SPELLED_OUT: Final = str.maketrans({"×": "x", "°": " degrees"})
"""The report uses the study's character set, which may lack these signs."""


def build_not_graded_sr(context: NotGradedContext, variant: SRVariant) -> ReportObject:
    """Build one variant of the SR.

    Notes
    -----
    If the reason concerns a single series, the image library lists the images of that series.
    The evidence lists every instance of the study, because the result is that none of them can be
    graded (PS3.3 C.17.2: all instances of the procedure that the creator is aware of).
    """
    evaluations: list[CodeContentItem | TextContentItem] = [
        CodeContentItem(codes.NOT_GRADED, codes.REASONS[context.reason], Relationship.CONTAINS)
    ]
    if context.detail:
        evaluations.append(
            TextContentItem(codes.COMMENT, _plain(context.detail), Relationship.CONTAINS)
        )
    return write_sr(
        context,
        variant,
        uid=context.uid("not-graded-sr-instance", sr=variant.sr_class),
        sections=[
            *([plain_image_library(context.images)] if context.images else []),
            qualitative_evaluations(context, evaluations, conclusion(context.reason)),
        ],
        evidence=[
            evidence_item(context, i.sop_class_uid, i.sop_instance_uid, i.series_uid)
            for i in context.study.instances
        ],
        description=SERIES_DESCRIPTION,
    )


def conclusion(reason: Reason) -> str:
    """Return the sentences of the conclusion: no grade, the reason, and what that does not mean."""
    return (
        "Enlarged perivascular spaces (EPVS) were not graded. "
        f"Reason: {codes.REASONS[reason].meaning}. "
        "The absence of a grade does not indicate whether EPVS are present."
    )


def find_concerned_images(
    study: ClosedStudy, result: NotGradedStudy
) -> tuple[SpooledInstance, ...]:
    """Return the MR images of the series that the reason concerns; none if it concerns several.

    That series is the one whose verdict is also the verdict on the study.
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
    """Return `text` in printable ASCII: a detail may quote values from a hostile file."""
    spelled_out = text.translate(_SPELLED_OUT)
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in spelled_out)
