"""Views that stay fast after a year: `model_usage`, and on PostgreSQL `turnaround`.

What `model_usage` needs is in two indexes of `grades`. The time that a grade took is stored with
it, so that the mean no longer depends on how long stage timings are kept.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_BACKFILL = """
UPDATE grades
   SET study_uid = (SELECT study_uid FROM revisions WHERE revisions.id = grades.revision_id),
       seconds = (SELECT SUM(stage_timings.seconds) FROM stage_timings
                   WHERE stage_timings.revision_id = grades.revision_id)
"""
_INDEXES = {
    "ix_grades_of_rating_model": "rating_model_id study_uid rating seconds graded_at",
    "ix_grades_of_severity_model": "severity_model_id study_uid severity seconds graded_at",
}
_REPLACED = ("rating_model_id", "severity_model_id")

_MODEL_USAGE_BEFORE = """
WITH work AS (
    SELECT rating_model_id AS model_id, revision_id, rating, NULL AS severity, graded_at
      FROM grades
    UNION ALL
    SELECT severity_model_id, revision_id, NULL, severity, graded_at FROM grades
),
seconds AS (
    SELECT revision_id, SUM(seconds) AS seconds FROM stage_timings GROUP BY revision_id
)
SELECT model_versions.name, model_versions.version, model_versions.weights_sha256,
       model_versions.display_name, model_versions.training_data,
       COUNT(DISTINCT revisions.study_uid) AS studies,
       SUM(CASE WHEN work.rating = 0 THEN 1 ELSE 0 END) AS rating_0,
       SUM(CASE WHEN work.rating = 1 THEN 1 ELSE 0 END) AS rating_1,
       SUM(CASE WHEN work.rating = 2 THEN 1 ELSE 0 END) AS rating_2,
       SUM(CASE WHEN work.rating = 3 THEN 1 ELSE 0 END) AS rating_3,
       SUM(CASE WHEN work.rating = 4 THEN 1 ELSE 0 END) AS rating_4,
       SUM(CASE WHEN work.severity = 'none-to-mild' THEN 1 ELSE 0 END) AS none_to_mild,
       SUM(CASE WHEN work.severity = 'moderate-to-severe' THEN 1 ELSE 0 END)
           AS moderate_to_severe,
       AVG(seconds.seconds) AS mean_seconds,
       MIN(work.graded_at) AS first_used_at,
       MAX(work.graded_at) AS last_used_at
  FROM model_versions
  JOIN work ON work.model_id = model_versions.id
  JOIN revisions ON revisions.id = work.revision_id
  LEFT JOIN seconds ON seconds.revision_id = work.revision_id
 GROUP BY model_versions.id, model_versions.name, model_versions.version,
          model_versions.weights_sha256, model_versions.display_name,
          model_versions.training_data
"""
# Each part reads one index in its order, and nothing else.
_MODEL_USAGE = """
SELECT model_versions.name, model_versions.version, model_versions.weights_sha256,
       model_versions.display_name, model_versions.training_data,
       work.studies, work.rating_0, work.rating_1, work.rating_2, work.rating_3, work.rating_4,
       work.none_to_mild, work.moderate_to_severe, work.mean_seconds,
       work.first_used_at, work.last_used_at
  FROM (SELECT rating_model_id AS model_id, COUNT(DISTINCT study_uid) AS studies,
               COUNT(CASE rating WHEN 0 THEN 1 END) AS rating_0,
               COUNT(CASE rating WHEN 1 THEN 1 END) AS rating_1,
               COUNT(CASE rating WHEN 2 THEN 1 END) AS rating_2,
               COUNT(CASE rating WHEN 3 THEN 1 END) AS rating_3,
               COUNT(CASE rating WHEN 4 THEN 1 END) AS rating_4,
               0 AS none_to_mild, 0 AS moderate_to_severe,
               AVG(seconds) AS mean_seconds,
               MIN(graded_at) AS first_used_at, MAX(graded_at) AS last_used_at
          FROM grades
         GROUP BY rating_model_id
         UNION ALL
        SELECT severity_model_id, COUNT(DISTINCT study_uid),
               0, 0, 0, 0, 0,
               COUNT(CASE severity WHEN 'none-to-mild' THEN 1 END),
               COUNT(CASE severity WHEN 'moderate-to-severe' THEN 1 END),
               AVG(seconds), MIN(graded_at), MAX(graded_at)
          FROM grades
         GROUP BY severity_model_id) AS work
  JOIN model_versions ON model_versions.id = work.model_id
"""

_STATES = (
    "('receiving', 'closed', 'queued', 'processing', 'graded', 'delivered', 'committed', "
    "'rejected', 'failed')"
)
_TURNAROUND_BEFORE = """
SELECT revisions.study_uid, revisions.number AS revision, revisions.id AS revision_id,
       revisions.state AS status, revisions.opened_at,
       {receiving} AS receiving_s, {closed} AS closed_s, {queued} AS queued_s,
       {processing} AS processing_s, {graded} AS graded_s, {total} AS total_s
  FROM revisions
"""
_SPENT_BEFORE = """(SELECT SUM(CAST(EXTRACT(EPOCH FROM until - since) AS DOUBLE PRECISION))
          FROM (SELECT change.at AS since,
                       (SELECT following.at FROM audit_events AS following
                         WHERE following.revision_id = change.revision_id
                           AND following.seq > change.seq AND following.event IN {states}
                         ORDER BY following.seq LIMIT 1) AS until
                  FROM audit_events AS change
                 WHERE change.revision_id = revisions.id AND change.event {which}) AS spans)"""
# One look at the events of each revision. SQLite has no LATERAL, and keeps its lookups.
_TURNAROUND = """
SELECT revisions.study_uid, revisions.number AS revision, revisions.id AS revision_id,
       revisions.state AS status, revisions.opened_at,
       spent.receiving_s, spent.closed_s, spent.queued_s, spent.processing_s, spent.graded_s,
       spent.total_s
  FROM revisions
 CROSS JOIN LATERAL (
       SELECT SUM(seconds) FILTER (WHERE event = 'receiving') AS receiving_s,
              SUM(seconds) FILTER (WHERE event = 'closed') AS closed_s,
              SUM(seconds) FILTER (WHERE event = 'queued') AS queued_s,
              SUM(seconds) FILTER (WHERE event = 'processing') AS processing_s,
              SUM(seconds) FILTER (WHERE event = 'graded') AS graded_s,
              SUM(seconds) FILTER (WHERE event <> 'delivered') AS total_s
         FROM (SELECT event,
                      CAST(EXTRACT(EPOCH FROM LEAD(at) OVER (ORDER BY seq) - at)
                           AS DOUBLE PRECISION) AS seconds
                 FROM audit_events
                WHERE revision_id = revisions.id AND event IN {states}) AS spans) AS spent
"""


def upgrade() -> None:
    op.add_column(
        "grades",
        sa.Column(
            "study_uid",
            sa.String(64),
            nullable=False,
            server_default=sa.text("''"),
            comment="Study",
        ),
    )
    op.add_column(
        "grades",
        sa.Column(
            "seconds",
            sa.Double(),
            comment="Wall-clock seconds of the pipeline; NULL: removed before they were kept here",
        ),
    )
    op.execute(_BACKFILL)
    for name, columns in _INDEXES.items():
        op.create_index(name, "grades", columns.split())
    for column in _REPLACED:
        op.drop_index(f"ix_grades_{column}", "grades")
    _replace_model_usage(_MODEL_USAGE)
    if not _is_sqlite():
        _replace_turnaround(_TURNAROUND)


def downgrade() -> None:
    if not _is_sqlite():
        _replace_turnaround(_turnaround_before())
    _replace_model_usage(_MODEL_USAGE_BEFORE)
    for column in _REPLACED:
        op.create_index(f"ix_grades_{column}", "grades", [column])
    for name in _INDEXES:
        op.drop_index(name, "grades")
    op.drop_column("grades", "seconds")
    op.drop_column("grades", "study_uid")


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _replace_model_usage(query: str) -> None:
    op.execute("DROP VIEW model_usage")
    op.execute(sa.text(f"CREATE VIEW model_usage AS {query}"))
    if not _is_sqlite():
        op.execute("COMMENT ON VIEW model_usage IS 'Usage of each model version, and its grades'")


def _turnaround_before() -> str:
    spent = {
        state: _SPENT_BEFORE.replace("{which}", f"= '{state}'")
        for state in ("receiving", "closed", "queued", "processing", "graded")
    }
    counted = _SPENT_BEFORE.replace("{which}", "IN {states} AND change.event <> 'delivered'")
    query = _TURNAROUND_BEFORE.replace("{total}", counted)
    for state, expression in spent.items():
        query = query.replace(f"{{{state}}}", expression)
    return query


def _replace_turnaround(query: str) -> None:
    op.execute("DROP VIEW turnaround")
    op.execute(sa.text(f"CREATE VIEW turnaround AS {query.replace('{states}', _STATES)}"))
    op.execute(
        "COMMENT ON VIEW turnaround IS 'Seconds that each study revision spent in each state'"
    )
