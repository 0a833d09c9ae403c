"""The seven views that administrators query; their columns are a stable interface.

The migrations create them; this module describes their columns for typed reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Boolean, column, select, table

from db.models.types import UtcDateTime

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_COLUMNS: Final = {
    "worklist_results": (
        "patient_id accession_number study_date study_uid status rating count_range "
        "majority_rating severity severity_probability confidence models_agree rating_model "
        "severity_model sr_uid delivered_at reason caveat revision"
    ),
    "turnaround": (
        "study_uid revision revision_id status opened_at receiving_s closed_s queued_s "
        "processing_s graded_s total_s"
    ),
    "failures": (
        "kind study_uid revision revision_id destination reason detail since attempts instances "
        "last_at"
    ),
    "deliveries_pending": (
        "delivery_id study_uid revision revision_id destination status attempts waiting_since "
        "next_attempt_at last_error last_status"
    ),
    "refusals": "event reason calling_ae peer_address times first_at last_at",
    "model_usage": (
        "name version weights_sha256 display_name training_data studies rating_0 rating_1 "
        "rating_2 rating_3 rating_4 none_to_mild moderate_to_severe mean_seconds first_used_at "
        "last_used_at"
    ),
    "shadow_results": (
        "study_uid revision revision_id model reported_version shadow_version reported_rating "
        "shadow_rating equal_images reported_severity shadow_severity reported_probability "
        "shadow_probability agree failure seconds graded_at"
    ),
}
_MOMENTS: Final = {
    "delivered_at",
    "opened_at",
    "since",
    "waiting_since",
    "next_attempt_at",
    "first_at",
    "last_at",
    "first_used_at",
    "last_used_at",
    "graded_at",
}


def _column(name: str) -> Any:
    if name in _MOMENTS:
        return column(name, UtcDateTime())
    return column(name, Boolean()) if name in ("models_agree", "agree") else column(name)


VIEWS: Final = {
    name: table(name, *(_column(c) for c in columns.split())) for name, columns in _COLUMNS.items()
}


def read_view(session: Session, name: str, /, **where: Any) -> list[dict[str, Any]]:
    """Read the rows of a view as dictionaries, restricted to the column values in `where`."""
    view = VIEWS[name]
    rows = session.execute(select(view).filter_by(**where) if where else select(view))
    return [dict(row) for row in rows.mappings()]
