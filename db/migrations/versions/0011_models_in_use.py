"""Which version of a model is reported and which graded in shadow; what shadow versions predict.

The view ``shadow_results`` pairs reported and shadow results. The other views are unchanged.
"""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_SHADOW_RESULTS = """
SELECT revisions.study_uid, revisions.number AS revision, revisions.id AS revision_id,
       shadow.model, reported.version AS reported_version, shadow.version AS shadow_version,
       CASE WHEN shadow.model = 'rating' THEN grades.rating END AS reported_rating,
       shadow.rating AS shadow_rating,
       CASE WHEN shadow.rating IS NOT NULL THEN
            (SELECT COUNT(*) FROM image_ratings
               JOIN shadow_image_ratings AS image
                 ON image.revision_id = image_ratings.revision_id
                AND image.level = image_ratings.level AND image.side = image_ratings.side
                AND image.rating = image_ratings.rating
              WHERE image_ratings.revision_id = shadow.revision_id) END AS equal_images,
       CASE WHEN shadow.model = 'severity' THEN grades.severity END AS reported_severity,
       shadow.severity AS shadow_severity,
       CASE shadow.model WHEN 'rating' THEN grades.confidence
            ELSE grades.severity_probability END AS reported_probability,
       shadow.probability AS shadow_probability,
       CASE shadow.model WHEN 'rating' THEN grades.rating = shadow.rating
            ELSE grades.severity = shadow.severity END AS agree,
       shadow.failure, shadow.seconds, shadow.graded_at
  FROM shadow_grades AS shadow
  JOIN revisions ON revisions.id = shadow.revision_id
  JOIN grades ON grades.revision_id = shadow.revision_id
  JOIN model_versions AS reported
    ON reported.id = CASE shadow.model WHEN 'rating' THEN grades.rating_model_id
                          ELSE grades.severity_model_id END
"""
_COMMENT = "Results of reported and shadow versions for the same studies"


def upgrade() -> None:
    op.create_table(
        "model_assignments",
        _text("model", 32, "Name in the model repository"),
        _text("role", 16, "reported or shadow"),
        sa.Column(
            "number",
            sa.Integer(),
            nullable=False,
            autoincrement=False,
            comment="1, 2, 3 … for a model and role",
        ),
        sa.Column(
            "version",
            sa.String(16),
            comment="Version folder; NULL: no version has the role any more",
        ),
        sa.Column(
            "back_to",
            sa.Integer(),
            comment="Number of the row to which a rollback goes; NULL: there is none",
        ),
        _moment("since", "When it took the role"),
        sa.Column(
            "operator",
            sa.Text(),
            nullable=False,
            comment="Who decided; empty: the first worker, as nobody had",
        ),
        sa.CheckConstraint(
            "role IN ('reported', 'shadow')", name=op.f("ck_model_assignments_model_role")
        ),
        sa.PrimaryKeyConstraint("model", "role", "number", name="pk_model_assignments"),
        comment="Which version of a model was reported, and which in shadow, since when",
    )
    op.create_table(
        "shadow_grades",
        _text("revision_id", 32, "Revision that this belongs to"),
        _text("model", 32, "Name in the model repository"),
        _text("version", 16, "Version folder"),
        sa.Column("model_version_id", sa.Integer(), comment="Model that predicted"),
        sa.Column("rating", sa.Integer(), comment="Highest rating of the six images, 0 to 4"),
        sa.Column(
            "majority_rating", sa.Integer(), comment="Most frequent rating of the six images"
        ),
        sa.Column("severity", sa.String(32), comment="'none-to-mild' or 'moderate-to-severe'"),
        sa.Column(
            "probability", sa.Double(), comment="Of the rating; of at least ten EPVS for severity"
        ),
        sa.Column(
            "failure", sa.String(64), comment="Code of the reason why there is no prediction"
        ),
        sa.Column("failure_detail", sa.Text(), comment="The reason in words"),
        sa.Column(
            "seconds",
            sa.Double(),
            nullable=False,
            comment="Wall-clock seconds after the reported result",
        ),
        _moment("graded_at", "When it was stored"),
        sa.PrimaryKeyConstraint("revision_id", "model", name="pk_shadow_grades"),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revisions.id"], name="fk_shadow_grades_revision_id_revisions"
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name="fk_shadow_grades_model_version_id_model_versions",
        ),
        sa.CheckConstraint("rating BETWEEN 0 AND 4", name=op.f("ck_shadow_grades_rating_0_to_4")),
        sa.CheckConstraint(
            "majority_rating BETWEEN 0 AND 4", name=op.f("ck_shadow_grades_majority_rating_0_to_4")
        ),
        sa.CheckConstraint(
            "(failure IS NULL) = (model_version_id IS NOT NULL)",
            name=op.f("ck_shadow_grades_one_outcome"),
        ),
        comment="Predictions of shadow versions; never part of a report",
    )
    op.create_index("ix_shadow_grades_model_version_id", "shadow_grades", ["model_version_id"])
    op.create_table(
        "shadow_image_ratings",
        _text("revision_id", 32, "Revision that this belongs to"),
        _text("level", 16, "inferior, middle or superior"),
        _text("side", 1, "Patient's side: L or R"),
        sa.Column("rating", sa.Integer(), nullable=False, comment="Rating of the image, 0 to 4"),
        sa.Column(
            "probability", sa.Double(), nullable=False, comment="Probability of that rating, 0 to 1"
        ),
        sa.PrimaryKeyConstraint("revision_id", "level", "side", name="pk_shadow_image_ratings"),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revisions.id"], name="fk_shadow_image_ratings_revision_id_revisions"
        ),
        sa.CheckConstraint(
            "rating BETWEEN 0 AND 4", name=op.f("ck_shadow_image_ratings_rating_0_to_4")
        ),
        comment="Ratings of the six images by a shadow version; never part of a report",
    )
    op.execute(sa.text(f"CREATE VIEW shadow_results AS {_SHADOW_RESULTS}"))
    if op.get_bind().dialect.name != "sqlite":
        op.execute(f"COMMENT ON VIEW shadow_results IS '{_COMMENT}'")


def downgrade() -> None:
    op.execute("DROP VIEW shadow_results")
    for table in ("shadow_image_ratings", "shadow_grades", "model_assignments"):
        op.drop_table(table)


def _text(name: str, length: int, comment: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False, comment=comment)


def _moment(name: str, comment: str) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, comment=comment)
