"""The enumerations that are stored in SQL, by their values."""

from __future__ import annotations

from enum import StrEnum


class RevisionState(StrEnum):
    """State of a study revision; `db.states` has the transitions."""

    RECEIVING = "receiving"
    """Instances are arriving."""
    CLOSED = "closed"
    """The study was quiet long enough: no further instance joins this revision."""
    QUEUED = "queued"
    """Waits for a worker."""
    PROCESSING = "processing"
    """A worker holds the lease and is grading."""
    GRADED = "graded"
    """Grade and report are stored; deliveries are planned."""
    DELIVERED = "delivered"
    """Every destination has received the report."""
    COMMITTED = "committed"
    """Every archive has given its storage commitment."""
    REJECTED = "rejected"
    """Cannot be graded; the reason is stored. Final."""
    FAILED = "failed"
    """All attempts failed; an operator has to act."""


class DeliveryState(StrEnum):
    """State of the delivery of one revision to one destination."""

    PENDING = "pending"
    """Waits for a worker, possibly until a later time."""
    SENDING = "sending"
    """A worker holds the lease and is sending."""
    DELIVERED = "delivered"
    """The destination has everything, as the proof shows."""
    PARKED = "parked"
    """Not attempted again until an operator runs ``epvs-node redeliver``."""


class Proof(StrEnum):
    """What shows that a destination has received everything."""

    COMMITMENT = "commitment"
    """Its storage commitment for every object."""
    C_FIND = "c-find"
    """A C-FIND response that lists every object."""
    STORE_STATUS = "store-status"
    """A C-STORE response of success or warning for every object."""
    HL7_ACK = "hl7-ack"
    """A positive HL7 acknowledgment."""


class OutboxKind(StrEnum):
    """What waits for a worker."""

    REVISION = "revision"
    """A revision, to be graded."""
    DELIVERY = "delivery"
    """A delivery, to be sent."""


class ModelRole(StrEnum):
    """What a version of a model is used for."""

    REPORTED = "reported"
    """Its predictions are the results."""
    SHADOW = "shadow"
    """Its predictions for the same studies are stored beside the results, and never reported."""


class QuarantineReason(StrEnum):
    """Why a received instance is kept apart from its study."""

    CONFLICT = "conflict"
    """Its SOP Instance UID is known with different content."""
    OTHER_PATIENT = "other-patient"
    """Its Patient ID differs from that of its study."""
    OTHER_ACCESSION = "other-accession"
    """Its Accession Number differs from that of its study."""
    NO_PATIENT_ID = "no-patient-id"
    """It or its study has no Patient ID, and another caller opened the study."""


class Resolution(StrEnum):
    """What became of a quarantined instance; none while it waits for a person."""

    ACCEPTED = "accepted"
    """An operator took it into the study."""
    DISCARDED = "discarded"
    """An operator left it out for good."""
    REPLACED = "replaced"
    """It was the study's until an operator accepted another one in its place."""
