"""The tables of the database, as SQLAlchemy models.

Patient identifiers are stored in `Study` only. The revisions of a study share its instances:
revision n consists of every instance whose first revision has the number n or a lower one.
"""

from db.models.audit import AuditEvent, AuditHead, RefusalCount
from db.models.base import Base
from db.models.delivery import CommitmentRequest, Delivery, DeliveryObject, ReportObjectRow
from db.models.grading import (
    GradeRow,
    ImageRatingRow,
    ModelVersion,
    SeriesVerdictRow,
    StageTimingRow,
)
from db.models.model_use import ModelAssignment, ShadowGrade, ShadowImageRating
from db.models.outbox import OutboxRow
from db.models.receiving import Instance, QuarantinedInstance, Revision, Study
from db.models.retention import FileRemoval

__all__ = [
    "AuditEvent",
    "AuditHead",
    "Base",
    "CommitmentRequest",
    "Delivery",
    "DeliveryObject",
    "FileRemoval",
    "GradeRow",
    "ImageRatingRow",
    "Instance",
    "ModelAssignment",
    "ModelVersion",
    "OutboxRow",
    "QuarantinedInstance",
    "RefusalCount",
    "ReportObjectRow",
    "Revision",
    "SeriesVerdictRow",
    "ShadowGrade",
    "ShadowImageRating",
    "StageTimingRow",
    "Study",
]
