"""Compares the identity that a report states with the row of its study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.text import column_text
from db.models import Revision, Study

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from core.results import ReportIdentity

IDENTITY_MISMATCH: Final = "identity-mismatch"
"""Code of the failure: the report names another patient, study or accession than the row."""


def find_mismatch(session: Session, revision_id: str, identity: ReportIdentity) -> str:
    """Compare a report with the study of its revision.

    An empty Patient ID or Accession Number in the report contradicts nothing: instances may lack
    them. The row has those of the first instance that is not without.

    Returns
    -------
    str
        Names of the attributes that differ, without their values; empty if none does.
    """
    study = session.get_one(Study, session.get_one(Revision, revision_id).study_uid)
    pairs = {
        "Study Instance UID": (identity.study_uid, study.study_uid),
        "Patient ID": (column_text(identity.patient_id), study.patient_id),
        "Accession Number": (column_text(identity.accession_number)[:16], study.accession_number),
    }
    return ", ".join(
        name
        for name, (stated, stored) in pairs.items()
        if stated and _without_padding(stated) != _without_padding(stored)
    )


def _without_padding(text: str) -> str:
    """Strip each part between backslashes, as pydicom reads a text of several values."""
    return "\\".join(part.strip() for part in text.split("\\"))
