"""The states of revisions and deliveries, as they are stored."""

from __future__ import annotations

from enum import StrEnum


class RevisionState(StrEnum):
    """Where a study revision stands; the way between them is in `db.states`."""

    RECEIVING = "receiving"
    CLOSED = "closed"
    QUEUED = "queued"
    PROCESSING = "processing"
    GRADED = "graded"
    DELIVERED = "delivered"
    COMMITTED = "committed"
    REJECTED = "rejected"
    FAILED = "failed"


class DeliveryState(StrEnum):
    """Where the delivery of one revision to one destination stands."""

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    PARKED = "parked"
    """Waits for a person (``epvs-node redeliver``)."""
