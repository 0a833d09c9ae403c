"""Retention: which files were removed, which are to be, and indexes for a year of studies.

The view ``failures`` leaves out what an operator has abandoned.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_REMOVED = "When its file was removed, or set to be; NULL: it is there"
_COLUMNS = {
    "studies": {
        "files_removed_at": "When the files of its instances were removed; NULL: it may have files"
    },
    "revisions": {
        "abandoned_at": "When an operator accepted that it stays failed",
        "report_removed_at": (
            "When the files of its report were removed, or set to be; NULL: they are there"
        ),
    },
    "instances": {
        "removed_at": _REMOVED,
        "restored_at": "When its file was received again after a removal",
    },
    "quarantined_instances": {"removed_at": _REMOVED},
    "deliveries": {"abandoned_at": "When an operator accepted that it stays parked"},
}
_INDEXES = {
    "studies": (("files_removed_at", "first_received_at"), ("study_date",), ("patient_id",)),
    "revisions": (("opened_at",), ("report_removed_at", "state_since")),
    "quarantined_instances": (("study_uid",), ("resolution", "removed_at")),
    "file_removals": (("study_uid",), ("attempts", "id")),
}
_WITH_ISSUER = ("studies", "quarantined_instances")

_FAILURES = """
SELECT 'study' AS kind, revisions.study_uid, revisions.number AS revision,
       revisions.id AS revision_id, NULL AS destination,
       revisions.reason, revisions.reason_detail AS detail,
       revisions.state_since AS since, revisions.attempt AS attempts,
       CAST(NULL AS BIGINT) AS instances, revisions.state_since AS last_at
  FROM revisions
 WHERE revisions.state = 'failed'{of_revision}
   AND revisions.number = (SELECT MAX(number) FROM revisions AS r
                            WHERE r.study_uid = revisions.study_uid)
UNION ALL
SELECT 'delivery', revisions.study_uid, revisions.number, revisions.id, deliveries.destination,
       'delivery-parked', deliveries.last_error, deliveries.waiting_since,
       deliveries.attempt, NULL, deliveries.waiting_since
  FROM deliveries
  JOIN revisions ON revisions.id = deliveries.revision_id
 WHERE deliveries.state = 'parked'{of_delivery}
UNION ALL
SELECT 'quarantine', study_uid, NULL, NULL, NULL, reason, NULL, MIN(received_at), NULL,
       COUNT(*), MAX(received_at)
  FROM quarantined_instances
 WHERE resolution IS NULL
 GROUP BY study_uid, reason
"""

_STATES = (
    "('receiving', 'closed', 'queued', 'processing', 'graded', 'delivered', 'committed', "
    "'rejected', 'failed')"
)
_TURNAROUND_BEFORE = """
SELECT study_uid, revision, revision_id, status, opened_at,
       SUM(CASE WHEN event = 'receiving' THEN {seconds} END) AS receiving_s,
       SUM(CASE WHEN event = 'closed' THEN {seconds} END) AS closed_s,
       SUM(CASE WHEN event = 'queued' THEN {seconds} END) AS queued_s,
       SUM(CASE WHEN event = 'processing' THEN {seconds} END) AS processing_s,
       SUM(CASE WHEN event = 'graded' THEN {seconds} END) AS graded_s,
       SUM(CASE WHEN event <> 'delivered' THEN {seconds} END) AS total_s
  FROM (SELECT revisions.study_uid, revisions.number AS revision, revisions.id AS revision_id,
               revisions.state AS status, revisions.opened_at,
               change.event, change.at AS since,
               (SELECT following.at FROM audit_events AS following
                 WHERE following.revision_id = change.revision_id
                   AND following.seq > change.seq AND following.event IN {states}
                 ORDER BY following.seq LIMIT 1) AS until
          FROM revisions
          JOIN audit_events AS change ON change.revision_id = revisions.id
         WHERE change.event IN {states}) AS spans
 GROUP BY study_uid, revision, revision_id, status, opened_at
"""
# Without GROUP BY, a query for some days reads those alone; and each span is looked up once.
_TURNAROUND = """
SELECT revisions.study_uid, revisions.number AS revision, revisions.id AS revision_id,
       revisions.state AS status, revisions.opened_at,
       {receiving} AS receiving_s, {closed} AS closed_s, {queued} AS queued_s,
       {processing} AS processing_s, {graded} AS graded_s, {total} AS total_s
  FROM revisions
"""
_SPENT = """(SELECT SUM({seconds})
          FROM (SELECT change.at AS since,
                       (SELECT following.at FROM audit_events AS following
                         WHERE following.revision_id = change.revision_id
                           AND following.seq > change.seq AND following.event IN {states}
                         ORDER BY following.seq LIMIT 1) AS until
                  FROM audit_events AS change
                 WHERE change.revision_id = revisions.id AND change.event {which}) AS spans)"""


def upgrade() -> None:
    op.create_table(
        "file_removals",
        sa.Column("id", sa.Integer(), nullable=False, comment="Number of the row"),
        sa.Column(
            "study_uid", sa.String(64), nullable=False, comment="Study that the file belonged to"
        ),
        sa.Column("path", sa.Text(), nullable=False, comment="File"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False, comment="Size of the file"),
        sa.Column(
            "decided_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When the removal was decided",
        ),
        sa.Column("attempts", sa.Integer(), nullable=False, comment="Attempts that failed"),
        sa.PrimaryKeyConstraint("id", name="pk_file_removals"),
        sa.UniqueConstraint("path", name="uq_file_removals_path"),
        comment="Files whose removal is decided and not done yet",
    )
    for table, columns in _COLUMNS.items():
        for name, comment in columns.items():
            op.add_column(table, _moment(name, comment))
    for table in _WITH_ISSUER:
        op.add_column(
            table,
            sa.Column(
                "issuer_of_patient_id",
                sa.Text(),
                nullable=False,
                server_default=sa.text("''"),
                comment="Issuer of Patient ID (0010,0021)",
            ),
        )
    for table, indexes in _INDEXES.items():
        for names in indexes:
            op.create_index(_index(table, names), table, list(names))
    _replace_failures(" AND revisions.abandoned_at IS NULL", " AND deliveries.abandoned_at IS NULL")
    _replace_turnaround(_turnaround())


def downgrade() -> None:
    _replace_failures("", "")
    _replace_turnaround(_TURNAROUND_BEFORE)
    for table, indexes in _INDEXES.items():
        for names in indexes:
            op.drop_index(_index(table, names), table)
    for table, columns in _COLUMNS.items():
        for name in columns:
            op.drop_column(table, name)
    for table in _WITH_ISSUER:
        op.drop_column(table, "issuer_of_patient_id")
    op.drop_table("file_removals")


def _moment(name: str, comment: str) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), comment=comment)


def _index(table: str, names: tuple[str, ...]) -> str:
    return f"ix_{table}_{'_'.join(names)}"


def _replace_failures(of_revision: str, of_delivery: str) -> None:
    query = _FAILURES.replace("{of_revision}", of_revision).replace("{of_delivery}", of_delivery)
    op.execute("DROP VIEW failures")
    op.execute(sa.text(f"CREATE VIEW failures AS {query}"))
    if op.get_bind().dialect.name != "sqlite":
        op.execute(
            "COMMENT ON VIEW failures IS 'Failed studies, parked deliveries, quarantined "
            "instances: an operator has to act'"
        )


def _turnaround() -> str:
    spent = {
        state: _SPENT.replace("{which}", f"= '{state}'")
        for state in ("receiving", "closed", "queued", "processing", "graded")
    }
    counted = _SPENT.replace("{which}", "IN {states} AND change.event <> 'delivered'")
    query = _TURNAROUND.replace("{total}", counted)
    for state, expression in spent.items():
        query = query.replace(f"{{{state}}}", expression)
    return query


def _replace_turnaround(query: str) -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    seconds = (
        "(julianday(until) - julianday(since)) * 86400.0"
        if is_sqlite
        else "CAST(EXTRACT(EPOCH FROM until - since) AS DOUBLE PRECISION)"
    )
    text = query.replace("{seconds}", seconds).replace("{states}", _STATES)
    op.execute("DROP VIEW turnaround")
    op.execute(sa.text(f"CREATE VIEW turnaround AS {text}"))
    if not is_sqlite:
        op.execute(
            "COMMENT ON VIEW turnaround IS 'Seconds that each study revision spent in each state'"
        )
