"""Views: the interface for administrators; `db.views` lists their columns."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

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
                        WHERE r.study_uid = studies.study_uid AND r.delivered_at IS NOT NULL)
  LEFT JOIN grades ON grades.revision_id = shown.id
  LEFT JOIN model_versions AS rating_model ON rating_model.id = grades.rating_model_id
  LEFT JOIN model_versions AS severity_model ON severity_model.id = grades.severity_model_id
"""

# The time in a state ends with the revision's next change of state; retries are added. The next
# change is found by an index, so a query for one study does not read the whole audit trail.
_STATES = (
    "('receiving', 'closed', 'queued', 'processing', 'graded', 'delivered', 'committed', "
    "'rejected', 'failed')"
)
_TURNAROUND = """
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

_FAILURES = """
SELECT 'study' AS kind, revisions.study_uid, revisions.number AS revision,
       revisions.id AS revision_id, NULL AS destination,
       revisions.reason, revisions.reason_detail AS detail,
       revisions.state_since AS since, revisions.attempt AS attempts
  FROM revisions
 WHERE revisions.state = 'failed'
   AND revisions.number = (SELECT MAX(number) FROM revisions AS r
                            WHERE r.study_uid = revisions.study_uid)
UNION ALL
SELECT 'delivery', revisions.study_uid, revisions.number, revisions.id, deliveries.destination,
       'delivery-parked', deliveries.last_error, deliveries.waiting_since, deliveries.attempt
  FROM deliveries
  JOIN revisions ON revisions.id = deliveries.revision_id
 WHERE deliveries.state = 'parked'
"""

_DELIVERIES_PENDING = """
SELECT deliveries.id AS delivery_id, revisions.study_uid, revisions.number AS revision,
       revisions.id AS revision_id, deliveries.destination, deliveries.state AS status,
       deliveries.attempt AS attempts, deliveries.waiting_since,
       deliveries.not_before AS next_attempt_at,
       deliveries.last_error, deliveries.last_status
  FROM deliveries
  JOIN revisions ON revisions.id = deliveries.revision_id
 WHERE deliveries.state IN ('pending', 'sending', 'parked')
"""

_MODEL_USAGE = """
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

_VIEWS = {
    "worklist_results": (_WORKLIST_RESULTS, "Every study with its latest delivered grade"),
    "turnaround": (_TURNAROUND, "Seconds that each study revision spent in each state"),
    "failures": (_FAILURES, "What waits for a person: failed studies, parked deliveries"),
    "deliveries_pending": (_DELIVERIES_PENDING, "Results that a destination does not have yet"),
    "model_usage": (_MODEL_USAGE, "What each model version graded, and how"),
}


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    seconds = (
        "(julianday(until) - julianday(since)) * 86400.0"
        if is_sqlite
        else "CAST(EXTRACT(EPOCH FROM until - since) AS DOUBLE PRECISION)"
    )
    for name, (query, comment) in _VIEWS.items():
        text = query.replace("{seconds}", seconds).replace("{states}", _STATES)
        op.execute(sa.text(f"CREATE VIEW {name} AS {text}"))
        if not is_sqlite:
            op.execute(sa.text(f"COMMENT ON VIEW {name} IS '{comment}'"))


def downgrade() -> None:
    for name in _VIEWS:
        op.execute(f"DROP VIEW {name}")
