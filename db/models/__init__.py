"""The tables: one row type for each thing that the node received, decided, made or sent.

Patient identifiers live in `Study` and nowhere else. Revisions of a study share its instances:
revision n consists of every instance whose first revision is numbered n or lower.
"""

from db.models.audit import AuditEvent, AuditHead
from db.models.base import Base
from db.models.delivery import CommitmentRequest, Delivery, DeliveryObject, ReportObjectRow
from db.models.grading import (
    GradeRow,
    ImageRatingRow,
    ModelVersion,
    SeriesVerdictRow,
    StageTimingRow,
)
from db.models.outbox import OutboxRow
from db.models.receiving import Instance, QuarantinedInstance, Revision, Study

__all__ = [
    "AuditEvent",
    "AuditHead",
    "Base",
    "CommitmentRequest",
    "Delivery",
    "DeliveryObject",
    "GradeRow",
    "ImageRatingRow",
    "Instance",
    "ModelVersion",
    "OutboxRow",
    "QuarantinedInstance",
    "ReportObjectRow",
    "Revision",
    "SeriesVerdictRow",
    "StageTimingRow",
    "Study",
]
