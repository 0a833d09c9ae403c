"""The caller that opened a study; what accepting quarantined instances needs.

The view ``failures`` also lists what is in quarantine. The view ``worklist_results`` shows no grade
from before the study's identity was replaced.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def _text(name: str, comment: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False, server_default=sa.text("''"), comment=comment)


def _columns() -> dict[str, tuple[sa.Column[Any], ...]]:
    """Make the new columns of each table."""
    return {
        "studies": (
            _text("calling_ae", "Calling AE title of the sender that opened the study"),
            _text("peer_address", "Address of that sender"),
            sa.Column(
                "identity_revision",
                sa.Integer(),
                nullable=False,
                server_default="1",
                comment="First revision of this patient: an operator may replace the identity",
            ),
        ),
        "instances": (
            sa.Column(
                "last_revision",
                sa.Integer(),
                comment="Number of the last revision that contains it; NULL: all since its first",
            ),
        ),
        "quarantined_instances": (
            _text("sop_class_uid", "SOP Class UID (0008,0016)"),
            _text("transfer_syntax_uid", "Transfer Syntax UID (0002,0010)"),
            _text("modality", "Modality (0008,0060)"),
            _text("patient_id", "Patient ID (0010,0020)"),
            _text("accession_number", "Accession Number (0008,0050)"),
            _text("study_date", "Study Date (0008,0020), YYYYMMDD"),
            sa.Column(
                "resolution",
                sa.String(16),
                comment="accepted, discarded, or replaced by an accepted one; NULL: undecided",
            ),
        ),
    }


_OPENED = """
UPDATE studies SET
  calling_ae = COALESCE((SELECT calling_ae FROM instances
                          WHERE instances.study_uid = studies.study_uid
                          ORDER BY received_at, sop_instance_uid LIMIT 1), ''),
  peer_address = COALESCE((SELECT peer_address FROM instances
                            WHERE instances.study_uid = studies.study_uid
                            ORDER BY received_at, sop_instance_uid LIMIT 1), '')
"""

_FAILURES = """
SELECT 'study' AS kind, revisions.study_uid, revisions.number AS revision,
       revisions.id AS revision_id, NULL AS destination,
       revisions.reason, revisions.reason_detail AS detail,
       revisions.state_since AS since, revisions.attempt AS attempts{study}
  FROM revisions
 WHERE revisions.state = 'failed'
   AND revisions.number = (SELECT MAX(number) FROM revisions AS r
                            WHERE r.study_uid = revisions.study_uid)
UNION ALL
SELECT 'delivery', revisions.study_uid, revisions.number, revisions.id, deliveries.destination,
       'delivery-parked', deliveries.last_error, deliveries.waiting_since,
       deliveries.attempt{delivery}
  FROM deliveries
  JOIN revisions ON revisions.id = deliveries.revision_id
 WHERE deliveries.state = 'parked'
"""
_QUARANTINE = """
UNION ALL
SELECT 'quarantine', study_uid, NULL, NULL, NULL, reason, NULL, MIN(received_at), NULL,
       COUNT(*), MAX(received_at)
  FROM quarantined_instances
 WHERE resolution IS NULL
 GROUP BY study_uid, reason
"""
_FAILURES_BEFORE = _FAILURES.format(study="", delivery="")
_FAILURES_NOW = (
    _FAILURES.format(
        study=", CAST(NULL AS BIGINT) AS instances, revisions.state_since AS last_at",
        delivery=", NULL, deliveries.waiting_since",
    )
    + _QUARANTINE
)

_WORKLIST_RESULTS = """
SELECT studies.patient_id, studies.accession_number, studies.study_date, studies.study_uid,
       newest.state AS status,
       grades.rating, grades.count_range, grades.majority_rating,
       grades.severity, grades.severity_probability, grades.confidence, grades.models_agree,
       rating_model.display_name || ' ' || rating_model.version AS rating_model,
       severity_model.display_name || ' ' || severity_model.version AS severity_model,
       (SELECT sop_instance_uid FROM report_objects
         WHERE report_objects.revision_id = shown.id AND kind = 'sr'
         ORDER BY position LIMIT 1) AS sr_uid,
       shown.delivered_at,
       newest.reason,
       grades.caveat,
       shown.number AS revision
  FROM studies
  LEFT JOIN revisions AS newest
    ON newest.study_uid = studies.study_uid
   AND newest.number = (SELECT MAX(number) FROM revisions AS r
                         WHERE r.study_uid = studies.study_uid)
  LEFT JOIN revisions AS shown
    ON shown.study_uid = studies.study_uid
   AND shown.number = (SELECT MAX(number) FROM revisions AS r
                        WHERE r.study_uid = studies.study_uid AND r.delivered_at IS NOT NULL{same})
  LEFT JOIN grades ON grades.revision_id = shown.id
  LEFT JOIN model_versions AS rating_model ON rating_model.id = grades.rating_model_id
  LEFT JOIN model_versions AS severity_model ON severity_model.id = grades.severity_model_id
"""
_SAME = "\n                          AND r.number >= studies.identity_revision"
_VIEW_COMMENTS = {
    "failures": (
        "Failed studies and parked deliveries: an operator has to act",
        "Failed studies, parked deliveries, quarantined instances: an operator has to act",
    ),
    "worklist_results": ("Every study with its latest delivered grade",) * 2,
}
_COMMENTS = {
    "TABLE studies": (
        "Studies received; the only table with patient identifiers",
        "Studies received; patient identifiers are here and in quarantined_instances only",
    ),
    "TABLE quarantined_instances": (
        "Instances that contradict an earlier one; kept, never graded",
        "Instances that contradict an earlier one; kept apart from their study",
    ),
    "COLUMN quarantined_instances.reason": (
        "conflict: UID known, other content; other-patient: Patient ID not the study's",
        (
            "conflict: UID known, other content; other-patient, other-accession: not its study's; "
            "no-patient-id: Patient ID missing, and not the caller that opened the study"
        ),
    ),
}


def upgrade() -> None:
    for table, columns in _columns().items():
        for column in columns:
            op.add_column(table, column)
    op.execute(_OPENED)
    _replace_views(_FAILURES_NOW, _WORKLIST_RESULTS.replace("{same}", _SAME), 1)


def downgrade() -> None:
    op.execute("DELETE FROM quarantined_instances WHERE reason = 'no-patient-id'")
    _replace_views(_FAILURES_BEFORE, _WORKLIST_RESULTS.replace("{same}", ""), 0)
    for table, columns in _columns().items():
        for column in columns:
            op.drop_column(table, column.name)


def _replace_views(failures: str, worklist_results: str, which: int) -> None:
    """Create the two views anew; set the comments from before (0) or after (1) this migration."""
    comments = {what: pair[which] for what, pair in _COMMENTS.items()}
    for name, query in {"failures": failures, "worklist_results": worklist_results}.items():
        op.execute(f"DROP VIEW {name}")
        op.execute(sa.text(f"CREATE VIEW {name} AS {query}"))
        comments[f"VIEW {name}"] = _VIEW_COMMENTS[name][which]
    if op.get_bind().dialect.name == "sqlite":
        return
    for target, comment in comments.items():
        text = comment.replace("'", "''")
        op.get_bind().exec_driver_sql(f"COMMENT ON {target} IS '{text}'")
