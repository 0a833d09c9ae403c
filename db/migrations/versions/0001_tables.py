"""The tables; `db.models` describes their present form."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column(
            "seq",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="Number of the event, from 1 without gaps",
        ),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, comment="When it happened"),
        sa.Column(
            "event", sa.String(64), nullable=False, comment="A study state, or what else happened"
        ),
        sa.Column("study_uid", sa.String(64), nullable=True, comment="Study concerned"),
        sa.Column("revision_id", sa.String(32), nullable=True, comment="Revision concerned"),
        sa.Column("detail", sa.JSON(), nullable=False, comment="UIDs, codes and numbers only"),
        sa.Column(
            "previous_hash", sa.String(64), nullable=False, comment="Hash of the event before"
        ),
        sa.Column(
            "hash",
            sa.String(64),
            nullable=False,
            comment="SHA-256 over this event and the hash of the one before",
        ),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_events"),
        comment="Append-only audit trail, hash-chained; no patient data",
    )
    op.create_index("ix_audit_events_revision_id_seq", "audit_events", ["revision_id", "seq"])
    op.create_index("ix_audit_events_study_uid_seq", "audit_events", ["study_uid", "seq"])
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False, comment="Always 1"),
        sa.Column("seq", sa.BigInteger(), nullable=False, comment="Number of the newest event"),
        sa.Column("hash", sa.String(64), nullable=False, comment="Its hash"),
        sa.CheckConstraint("id = 1", name=op.f("ck_audit_head_one_row")),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
        comment="Newest audit event; one row",
    )
    op.create_table(
        "model_versions",
        sa.Column("id", sa.Integer(), nullable=False, comment="Number of the row"),
        sa.Column("name", sa.Text(), nullable=False, comment="Name in the model repository"),
        sa.Column(
            "version", sa.Text(), nullable=False, comment="Version folder in the model repository"
        ),
        sa.Column(
            "weights_sha256", sa.String(64), nullable=False, comment="SHA-256 of the weights file"
        ),
        sa.Column(
            "display_name", sa.Text(), nullable=False, comment="Name for people, as in the SR"
        ),
        sa.Column(
            "training_data",
            sa.Text(),
            nullable=False,
            comment="'synthetic' or what the model card says",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_model_versions"),
        sa.UniqueConstraint(
            "name",
            "version",
            "weights_sha256",
            name="uq_model_versions_name_version_weights_sha256",
        ),
        comment="Model versions that took part in grades",
    )
    op.create_table(
        "studies",
        sa.Column(
            "study_uid", sa.String(64), nullable=False, comment="Study Instance UID (0020,000D)"
        ),
        sa.Column("patient_id", sa.Text(), nullable=False, comment="Patient ID (0010,0020)"),
        sa.Column(
            "accession_number", sa.Text(), nullable=False, comment="Accession Number (0008,0050)"
        ),
        sa.Column(
            "study_date", sa.Text(), nullable=False, comment="Study Date (0008,0020), YYYYMMDD"
        ),
        sa.Column(
            "first_received_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="Arrival of its first instance",
        ),
        sa.PrimaryKeyConstraint("study_uid", name="pk_studies"),
        comment="Studies received; the only table with patient identifiers",
    )
    op.create_table(
        "revisions",
        sa.Column(
            "id",
            sa.String(32),
            nullable=False,
            comment="Opaque id (UUID, hex); all that the broker sees",
        ),
        sa.Column("study_uid", sa.String(64), nullable=False, comment="Study"),
        sa.Column(
            "number", sa.Integer(), nullable=False, comment="1 for the first closing, then 2, 3, …"
        ),
        sa.Column("state", sa.String(16), nullable=False, comment="Where the revision stands"),
        sa.Column(
            "state_since",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it came to that state",
        ),
        sa.Column(
            "opened_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="Arrival of the instance that opened it",
        ),
        sa.Column(
            "last_received_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="Latest arrival of any of its instances; the quiet period starts here",
        ),
        sa.Column("attempt", sa.Integer(), nullable=False, comment="Attempts charged so far"),
        sa.Column(
            "token",
            sa.Integer(),
            nullable=False,
            comment="Fencing token: number of the latest claim; older claims change nothing",
        ),
        sa.Column(
            "lease_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the worker that processes it counts as lost",
        ),
        sa.Column(
            "not_before",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="No attempt before this moment",
        ),
        sa.Column(
            "reason",
            sa.Text(),
            nullable=True,
            comment="Code of the rejection, of the failure, or of the latest interrupted attempt",
        ),
        sa.Column("reason_detail", sa.Text(), nullable=True, comment="The figures behind the code"),
        sa.Column(
            "delivered_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the last destination had its results",
        ),
        sa.CheckConstraint("attempt >= 0", name=op.f("ck_revisions_attempt_not_negative")),
        sa.CheckConstraint("number >= 1", name=op.f("ck_revisions_number_from_one")),
        sa.ForeignKeyConstraint(
            ["study_uid"], ["studies.study_uid"], name="fk_revisions_study_uid_studies"
        ),
        sa.CheckConstraint(
            "state IN ('receiving', 'closed', 'queued', 'processing', 'graded', 'delivered', "
            "'committed', 'rejected', 'failed')",
            name=op.f("ck_revisions_state"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_revisions"),
        sa.UniqueConstraint("study_uid", "number", name="uq_revisions_study_uid_number"),
        comment="Study revisions and their state; a late instance opens the next one",
    )
    op.create_index(
        "ix_revisions_state_last_received_at", "revisions", ["state", "last_received_at"]
    )
    op.create_index("ix_revisions_state_lease_until", "revisions", ["state", "lease_until"])
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(32), nullable=False, comment="Opaque id (UUID, hex)"),
        sa.Column(
            "revision_id", sa.String(32), nullable=False, comment="Revision that this belongs to"
        ),
        sa.Column("destination", sa.Text(), nullable=False, comment="AE@host:port"),
        sa.Column("state", sa.String(16), nullable=False, comment="Where the delivery stands"),
        sa.Column(
            "attempt", sa.Integer(), nullable=False, comment="Attempts since it began to wait"
        ),
        sa.Column(
            "token", sa.Integer(), nullable=False, comment="Fencing token: number of the claim"
        ),
        sa.Column(
            "waiting_since",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it began to wait",
        ),
        sa.Column(
            "not_before",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="No attempt before this moment",
        ),
        sa.Column(
            "lease_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the worker that sends it counts as lost",
        ),
        sa.Column("last_error", sa.Text(), nullable=True, comment="Why the latest attempt failed"),
        sa.Column(
            "last_status", sa.Integer(), nullable=True, comment="Its DIMSE status, if there was one"
        ),
        sa.Column(
            "proof",
            sa.Text(),
            nullable=True,
            comment="How storage was proven, e.g. commitment, find or status",
        ),
        sa.Column(
            "delivered_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When storage was proven",
        ),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revisions.id"], name="fk_deliveries_revision_id_revisions"
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'sending', 'delivered', 'parked')",
            name=op.f("ck_deliveries_state"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint(
            "revision_id", "destination", name="uq_deliveries_revision_id_destination"
        ),
        comment="Deliveries of results, one for each destination",
    )
    op.create_index("ix_deliveries_state_lease_until", "deliveries", ["state", "lease_until"])
    op.create_table(
        "grades",
        sa.Column(
            "revision_id", sa.String(32), nullable=False, comment="Revision that this belongs to"
        ),
        sa.Column("series_uid", sa.String(64), nullable=False, comment="Series that was graded"),
        sa.Column(
            "rating",
            sa.Integer(),
            nullable=False,
            comment="Highest rating of the six images, 0 to 4",
        ),
        sa.Column(
            "majority_rating",
            sa.Integer(),
            nullable=False,
            comment="Most frequent rating of the six images",
        ),
        sa.Column(
            "count_range", sa.String(8), nullable=False, comment="EPVS count behind the rating"
        ),
        sa.Column(
            "confidence", sa.Double(), nullable=False, comment="Probability of the rating, 0 to 1"
        ),
        sa.Column(
            "severity",
            sa.String(32),
            nullable=False,
            comment="'none-to-mild' or 'moderate-to-severe'",
        ),
        sa.Column(
            "severity_probability",
            sa.Double(),
            nullable=False,
            comment="P(at least ten EPVS), 0 to 1",
        ),
        sa.Column(
            "models_agree",
            sa.Boolean(),
            nullable=False,
            comment="Rating of at least 2 exactly when severity is moderate-to-severe",
        ),
        sa.Column(
            "rating_model_id", sa.Integer(), nullable=False, comment="Model that gave the rating"
        ),
        sa.Column(
            "severity_model_id",
            sa.Integer(),
            nullable=False,
            comment="Model that gave the severity",
        ),
        sa.Column(
            "box_correlation",
            sa.Double(),
            nullable=False,
            comment="Registration quality: correlation with the template around the basal ganglia",
        ),
        sa.Column(
            "brain_correlation",
            sa.Double(),
            nullable=False,
            comment="Registration quality: correlation with the template over the brain",
        ),
        sa.Column(
            "coverage",
            sa.Double(),
            nullable=False,
            comment="Registration quality: share of the box inside the scan",
        ),
        sa.Column(
            "scale",
            sa.Double(),
            nullable=False,
            comment="Registration quality: scale of the affine",
        ),
        sa.Column("saliency_mean", sa.Double(), nullable=False, comment="Mean activation, 0 to 10"),
        sa.Column(
            "saliency_skewness", sa.Double(), nullable=False, comment="Skewness of the activation"
        ),
        sa.Column(
            "saliency_share_above_7",
            sa.Double(),
            nullable=False,
            comment="Share of activation above 7",
        ),
        sa.Column(
            "saliency_share_in_basal_ganglia",
            sa.Double(),
            nullable=False,
            comment="Share of the activation inside the basal ganglia",
        ),
        sa.Column(
            "summary",
            sa.Text(),
            nullable=False,
            comment="The report as readable text, without patient data",
        ),
        sa.Column(
            "caveat",
            sa.Text(),
            nullable=False,
            comment="What was said about the use of this grade; empty: nothing",
        ),
        sa.Column(
            "graded_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When the grade was stored",
        ),
        sa.CheckConstraint(
            "majority_rating BETWEEN 0 AND 4", name=op.f("ck_grades_majority_rating_0_to_4")
        ),
        sa.CheckConstraint("rating BETWEEN 0 AND 4", name=op.f("ck_grades_rating_0_to_4")),
        sa.ForeignKeyConstraint(
            ["rating_model_id"],
            ["model_versions.id"],
            name="fk_grades_rating_model_id_model_versions",
        ),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revisions.id"], name="fk_grades_revision_id_revisions"
        ),
        sa.ForeignKeyConstraint(
            ["severity_model_id"],
            ["model_versions.id"],
            name="fk_grades_severity_model_id_model_versions",
        ),
        sa.PrimaryKeyConstraint("revision_id", name="pk_grades"),
        comment="Grades of enlarged perivascular spaces in the basal ganglia",
    )
    op.create_index("ix_grades_rating_model_id", "grades", ["rating_model_id"])
    op.create_index("ix_grades_severity_model_id", "grades", ["severity_model_id"])
    op.create_table(
        "instances",
        sa.Column(
            "sop_instance_uid",
            sa.String(64),
            nullable=False,
            comment="SOP Instance UID (0008,0018)",
        ),
        sa.Column("study_uid", sa.String(64), nullable=False, comment="Study"),
        sa.Column(
            "first_revision_id",
            sa.String(32),
            nullable=False,
            comment="First revision that contains it",
        ),
        sa.Column(
            "series_uid", sa.String(64), nullable=False, comment="Series Instance UID (0020,000E)"
        ),
        sa.Column(
            "sop_class_uid", sa.String(64), nullable=False, comment="SOP Class UID (0008,0016)"
        ),
        sa.Column(
            "transfer_syntax_uid",
            sa.String(64),
            nullable=False,
            comment="Transfer Syntax UID (0002,0010)",
        ),
        sa.Column("modality", sa.Text(), nullable=False, comment="Modality (0008,0060)"),
        sa.Column("path", sa.Text(), nullable=False, comment="Part 10 file in the spool"),
        sa.Column("sha256", sa.String(64), nullable=False, comment="SHA-256 of the file"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False, comment="Size of the file"),
        sa.Column(
            "calling_ae", sa.Text(), nullable=False, comment="Calling AE title of the sender"
        ),
        sa.Column("peer_address", sa.Text(), nullable=False, comment="Address of the sender"),
        sa.Column(
            "received_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it was safe on disk",
        ),
        sa.ForeignKeyConstraint(
            ["first_revision_id"], ["revisions.id"], name="fk_instances_first_revision_id_revisions"
        ),
        sa.ForeignKeyConstraint(
            ["study_uid"], ["studies.study_uid"], name="fk_instances_study_uid_studies"
        ),
        sa.PrimaryKeyConstraint("sop_instance_uid", name="pk_instances"),
        comment="SOP instances received and kept in the spool",
    )
    op.create_index("ix_instances_first_revision_id", "instances", ["first_revision_id"])
    op.create_index("ix_instances_study_uid", "instances", ["study_uid"])
    op.create_table(
        "report_objects",
        sa.Column("id", sa.Integer(), nullable=False, comment="Number of the row"),
        sa.Column(
            "revision_id", sa.String(32), nullable=False, comment="Revision that this belongs to"
        ),
        sa.Column("position", sa.Integer(), nullable=False, comment="Order of sending, from 0"),
        sa.Column("kind", sa.String(2), nullable=False, comment="sr, sc or pm"),
        sa.Column("sop_class_uid", sa.String(64), nullable=False, comment="SOP Class UID"),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False, comment="SOP Instance UID"),
        sa.Column("series_uid", sa.String(64), nullable=False, comment="Series Instance UID"),
        sa.Column(
            "transfer_syntax_uid", sa.String(64), nullable=False, comment="Transfer Syntax UID"
        ),
        sa.Column("path", sa.Text(), nullable=False, comment="Part 10 file with the exact bytes"),
        sa.Column("sha256", sa.String(64), nullable=False, comment="SHA-256 of the file"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False, comment="Size of the file"),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revisions.id"], name="fk_report_objects_revision_id_revisions"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_report_objects"),
        sa.UniqueConstraint(
            "revision_id", "sop_instance_uid", name="uq_report_objects_revision_id_sop_instance_uid"
        ),
        comment="DICOM objects made for a revision",
    )
    op.create_index("ix_report_objects_sop_instance_uid", "report_objects", ["sop_instance_uid"])
    op.create_table(
        "series_verdicts",
        sa.Column(
            "revision_id", sa.String(32), nullable=False, comment="Revision that this belongs to"
        ),
        sa.Column("series_uid", sa.String(64), nullable=False, comment="Series"),
        sa.Column("reason", sa.String(32), nullable=False, comment="'selected' or why it was not"),
        sa.Column("detail", sa.Text(), nullable=False, comment="The figures behind the reason"),
        sa.Column("n_instances", sa.Integer(), nullable=False, comment="Instances of the series"),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revisions.id"], name="fk_series_verdicts_revision_id_revisions"
        ),
        sa.PrimaryKeyConstraint("revision_id", "series_uid", name="pk_series_verdicts"),
        comment="What selection decided about each series of a revision",
    )
    op.create_table(
        "stage_timings",
        sa.Column(
            "revision_id", sa.String(32), nullable=False, comment="Revision that this belongs to"
        ),
        sa.Column("position", sa.Integer(), nullable=False, comment="Order of the stages, from 0"),
        sa.Column("stage", sa.Text(), nullable=False, comment="Name of the stage"),
        sa.Column("seconds", sa.Double(), nullable=False, comment="Wall-clock seconds"),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revisions.id"], name="fk_stage_timings_revision_id_revisions"
        ),
        sa.PrimaryKeyConstraint("revision_id", "position", name="pk_stage_timings"),
        comment="Wall-clock time of each pipeline stage",
    )
    op.create_table(
        "delivery_objects",
        sa.Column("delivery_id", sa.String(32), nullable=False, comment="Delivery"),
        sa.Column("report_object_id", sa.Integer(), nullable=False, comment="Object"),
        sa.Column(
            "dimse_status", sa.Integer(), nullable=True, comment="C-STORE status of the destination"
        ),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name="fk_delivery_objects_delivery_id_deliveries"
        ),
        sa.ForeignKeyConstraint(
            ["report_object_id"],
            ["report_objects.id"],
            name="fk_delivery_objects_report_object_id_report_objects",
        ),
        sa.PrimaryKeyConstraint("delivery_id", "report_object_id", name="pk_delivery_objects"),
        comment="Which objects a destination is to receive",
    )
    op.create_table(
        "image_ratings",
        sa.Column("revision_id", sa.String(32), nullable=False, comment="Grade"),
        sa.Column("level", sa.String(16), nullable=False, comment="inferior, middle or superior"),
        sa.Column("side", sa.String(1), nullable=False, comment="Patient's side: L or R"),
        sa.Column(
            "slice_index",
            sa.Integer(),
            nullable=False,
            comment="Slice of the series, from 0, inferior first",
        ),
        sa.Column(
            "sop_instance_uid", sa.String(64), nullable=False, comment="Image that was rated"
        ),
        sa.Column(
            "frame_number", sa.Integer(), nullable=True, comment="Frame of an Enhanced MR, from 1"
        ),
        sa.Column("rating", sa.Integer(), nullable=False, comment="Rating of the image, 0 to 4"),
        sa.Column(
            "probability", sa.Double(), nullable=False, comment="Probability of that rating, 0 to 1"
        ),
        sa.CheckConstraint("rating BETWEEN 0 AND 4", name=op.f("ck_image_ratings_rating_0_to_4")),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["grades.revision_id"], name="fk_image_ratings_revision_id_grades"
        ),
        sa.PrimaryKeyConstraint("revision_id", "level", "side", name="pk_image_ratings"),
        comment="Ratings of the six images behind a grade",
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False, comment="Number of the row"),
        sa.Column("revision_id", sa.String(32), nullable=True, comment="Revision that waits"),
        sa.Column("delivery_id", sa.String(32), nullable=True, comment="Delivery that waits"),
        sa.Column(
            "ring_at", sa.DateTime(timezone=True), nullable=False, comment="When to ring (again)"
        ),
        sa.Column("rung", sa.Integer(), nullable=False, comment="How often it was rung"),
        sa.CheckConstraint(
            "(revision_id IS NULL) <> (delivery_id IS NULL)", name=op.f("ck_outbox_one_target")
        ),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name="fk_outbox_delivery_id_deliveries"
        ),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revisions.id"], name="fk_outbox_revision_id_revisions"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("delivery_id", name="uq_outbox_delivery_id"),
        sa.UniqueConstraint("revision_id", name="uq_outbox_revision_id"),
        comment="Revisions and deliveries that wait for a worker",
    )
    op.create_index("ix_outbox_ring_at", "outbox", ["ring_at"])
    op.create_table(
        "quarantined_instances",
        sa.Column("id", sa.Integer(), nullable=False, comment="Number of the row"),
        sa.Column(
            "sop_instance_uid",
            sa.String(64),
            nullable=False,
            comment="SOP Instance UID that is taken",
        ),
        sa.Column(
            "study_uid", sa.String(64), nullable=False, comment="Study that it claims to belong to"
        ),
        sa.Column(
            "series_uid",
            sa.String(64),
            nullable=False,
            comment="Series that it claims to belong to",
        ),
        sa.Column("path", sa.Text(), nullable=False, comment="Part 10 file in the spool"),
        sa.Column("sha256", sa.String(64), nullable=False, comment="SHA-256 of the file"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False, comment="Size of the file"),
        sa.Column(
            "calling_ae", sa.Text(), nullable=False, comment="Calling AE title of the sender"
        ),
        sa.Column("peer_address", sa.Text(), nullable=False, comment="Address of the sender"),
        sa.Column(
            "received_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it was safe on disk",
        ),
        sa.ForeignKeyConstraint(
            ["sop_instance_uid"],
            ["instances.sop_instance_uid"],
            name="fk_quarantined_instances_sop_instance_uid_instances",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_quarantined_instances"),
        sa.UniqueConstraint(
            "sop_instance_uid", "sha256", name="uq_quarantined_instances_sop_instance_uid_sha256"
        ),
        comment="Instances that contradict one received before; kept, never graded",
    )


def downgrade() -> None:
    for name in (
        "quarantined_instances",
        "outbox",
        "image_ratings",
        "delivery_objects",
        "stage_timings",
        "series_verdicts",
        "report_objects",
        "instances",
        "grades",
        "deliveries",
        "revisions",
        "studies",
        "model_versions",
        "audit_head",
        "audit_events",
    ):
        op.drop_table(name)
