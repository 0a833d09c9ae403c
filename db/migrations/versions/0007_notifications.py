"""Outbox columns named after notifications; comments of tables, columns and views reworded."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The comments before and after.
_TABLES = {
    "revisions": (
        "Study revisions and their state; a late instance opens the next one",
        "Study revisions; an instance that arrives after the closing opens the next",
    ),
    "instances": (
        "SOP instances received and kept in the spool",
        "SOP instances received",
    ),
    "quarantined_instances": (
        "Instances that contradict one received before; kept, never graded",
        "Instances that contradict an earlier one; kept, never graded",
    ),
    "series_verdicts": (
        "What selection decided about each series of a revision",
        "Verdict on each series of a revision",
    ),
    "model_versions": (
        "Model versions that took part in grades",
        "Model versions used for grades",
    ),
    "report_objects": (
        "DICOM objects made for a revision",
        "DICOM objects of the reports",
    ),
    "deliveries": (
        "Deliveries of results, one for each destination",
        "Deliveries of reports, one for each revision and destination",
    ),
    "commitment_requests": (
        "Storage commitment asked of destinations (PS3.4 annex J)",
        "Storage commitment requests (PS3.4 annex J)",
    ),
    "delivery_objects": (
        "Which objects a destination is to receive",
        "Objects of each delivery",
    ),
}
_COLUMNS = {
    ("studies", "first_received_at"): (
        "Arrival of its first instance",
        "When its first instance arrived",
    ),
    ("revisions", "id"): (
        "Opaque id (UUID, hex); all that the broker sees",
        "Opaque id (UUID, hex); all that is sent to the broker",
    ),
    ("revisions", "number"): (
        "1 for the first closing, then 2, 3, …",
        "1 for the first revision of the study, then 2, 3, …",
    ),
    ("revisions", "state"): (
        "Where the revision stands",
        "State of the revision",
    ),
    ("revisions", "state_since"): (
        "When it came to that state",
        "When it entered that state",
    ),
    ("revisions", "opened_at"): (
        "Arrival of the instance that opened it",
        "When the instance that opened it arrived",
    ),
    ("revisions", "last_received_at"): (
        "Latest arrival of any of its instances; the quiet period starts here",
        "When an instance of the study arrived last; the quiet period starts here",
    ),
    ("revisions", "token"): (
        "Fencing token: number of the latest claim; older claims change nothing",
        "Fencing token: number of the latest claim",
    ),
    ("revisions", "lease_until"): (
        "When the worker that processes it counts as lost",
        "When the lease of the processing worker expires",
    ),
    ("revisions", "not_before"): (
        "No attempt before this moment",
        "Earliest time of the next attempt",
    ),
    ("revisions", "reason"): (
        "Code of the rejection, of the failure, or of the latest interrupted attempt",
        "Reason code: why not graded, failed, or last interrupted",
    ),
    ("revisions", "delivered_at"): (
        "When the last destination had its results",
        "When the last destination had the report",
    ),
    ("instances", "received_at"): (
        "When it was safe on disk",
        "When it was durable on disk",
    ),
    ("quarantined_instances", "reason"): (
        "conflict: UID known with other content; other-patient: not that of its study",
        "conflict: UID known, other content; other-patient: Patient ID not the study's",
    ),
    ("quarantined_instances", "received_at"): (
        "When it was safe on disk",
        "When it was durable on disk",
    ),
    ("series_verdicts", "reason"): (
        "'selected' or why it was not",
        "'selected', or the code of the reason against it",
    ),
    ("model_versions", "display_name"): (
        "Name for people, as in the SR",
        "Display name, as in the SR",
    ),
    ("grades", "saliency_mean"): (
        "Mean activation, 0 to 10",
        "Mean activation over the brain, 0 to 10",
    ),
    ("grades", "saliency_skewness"): (
        "Skewness of the activation",
        "Skewness of the activation over the brain",
    ),
    ("grades", "saliency_share_above_7"): (
        "Share of activation above 7",
        "Share of brain voxels with an activation above 7",
    ),
    ("grades", "caveat"): (
        "What was said about the use of this grade; empty: nothing",
        "Intended use stated in the report; empty if there is none",
    ),
    ("report_objects", "kind"): (
        "sr, sc or pm",
        "sr (SR), sc (secondary capture) or pm (parametric map)",
    ),
    ("deliveries", "destination"): (
        "AE@host:port",
        "AE@host:port, or hl7://host:port",
    ),
    ("deliveries", "state"): (
        "Where the delivery stands",
        "State of the delivery",
    ),
    ("deliveries", "attempt"): (
        "Attempts since it began to wait",
        "Attempts since it was planned or rearmed",
    ),
    ("deliveries", "token"): (
        "Fencing token: number of the claim",
        "Fencing token: number of the latest claim",
    ),
    ("deliveries", "waiting_since"): (
        "When it began to wait",
        "When it was planned or rearmed",
    ),
    ("deliveries", "not_before"): (
        "No attempt before this moment",
        "Earliest time of the next attempt",
    ),
    ("deliveries", "lease_until"): (
        "When the worker that sends it counts as lost",
        "When the lease of the sending worker expires",
    ),
    ("deliveries", "last_status"): (
        "Its DIMSE status, if there was one",
        "DIMSE status of the latest failure, if there was one",
    ),
    ("deliveries", "proof"): (
        "How storage was proven, e.g. commitment, find or status",
        "What shows the delivery: commitment, c-find, store-status or hl7-ack",
    ),
    ("deliveries", "delivered_at"): (
        "When storage was proven",
        "When the proof was obtained",
    ),
    ("deliveries", "stored_at"): (
        "When everything was stored and only its commitment was missing",
        "When everything was stored and only the commitment was missing",
    ),
    ("commitment_requests", "delivery_id"): (
        "Delivery it is about",
        "Delivery whose objects it covers",
    ),
    ("commitment_requests", "requested_at"): (
        "When it was about to be sent",
        "When it was recorded, just before it was sent",
    ),
    ("commitment_requests", "answered_at"): (
        "When the N-EVENT-REPORT came",
        "When the N-EVENT-REPORT arrived",
    ),
    ("commitment_requests", "failed"): (
        "Failure Reason of each SOP Instance UID that is not committed",
        "Failure Reason by SOP Instance UID that was not committed",
    ),
    ("delivery_objects", "dimse_status"): (
        "C-STORE status of the destination",
        "C-STORE status from the destination",
    ),
    ("outbox", "notify_at"): (
        "When to ring (again)",
        "When the workers are notified next",
    ),
    ("outbox", "notifications"): (
        "How often it was rung",
        "How often the workers were notified",
    ),
    ("audit_events", "event"): (
        "A study state, or what else happened",
        "A revision state, or the name of another event",
    ),
    ("audit_events", "previous_hash"): (
        "Hash of the event before",
        "Hash of the preceding event",
    ),
    ("audit_events", "hash"): (
        "SHA-256 over this event and the hash of the one before",
        "SHA-256 of this event and the preceding hash",
    ),
    ("audit_head", "hash"): (
        "Its hash",
        "Hash of the newest event",
    ),
}
_VIEWS = {
    "failures": (
        "What waits for a person: failed studies, parked deliveries",
        "Failed studies and parked deliveries: an operator has to act",
    ),
    "deliveries_pending": (
        "Results that a destination does not have yet",
        "Deliveries that are not complete: pending, sending, awaiting commitment or parked",
    ),
    "model_usage": (
        "What each model version graded, and how",
        "Usage of each model version, and its grades",
    ),
    "refusals": (
        "Who was refused what, why, and how often",
        "Refused connections, associations, SOP classes and instances, counted by reason",
    ),
}


def upgrade() -> None:
    _rename("ring_at", "notify_at")
    op.execute("ALTER TABLE outbox RENAME COLUMN rung TO notifications")
    _comment(1)


def downgrade() -> None:
    _comment(0)
    op.execute("ALTER TABLE outbox RENAME COLUMN notifications TO rung")
    _rename("notify_at", "ring_at")


def _rename(before: str, after: str) -> None:
    """Rename the indexed column of the outbox."""
    op.drop_index(f"ix_outbox_{before}", "outbox")
    op.execute(f"ALTER TABLE outbox RENAME COLUMN {before} TO {after}")
    op.create_index(f"ix_outbox_{after}", "outbox", [after])


def _comment(which: int) -> None:
    """Set the comments from before (0) or after (1) this migration; SQLite has none."""
    if op.get_bind().dialect.name == "sqlite":
        return
    comments = {
        **{f"TABLE {table}": pair for table, pair in _TABLES.items()},
        **{f"COLUMN {table}.{column}": pair for (table, column), pair in _COLUMNS.items()},
        **{f"VIEW {view}": pair for view, pair in _VIEWS.items()},
    }
    for target, pair in comments.items():
        text = pair[which].replace("'", "''")
        op.get_bind().exec_driver_sql(f"COMMENT ON {target} IS '{text}'")
