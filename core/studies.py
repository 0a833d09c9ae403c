"""Received instances and closed studies, as the receiver and the worker exchange them.

These records contain no pixels; they correspond to rows of the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.priorities import NORMAL

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ReceivedInstance:
    """One SOP instance, durable on disk as a Part 10 file that is named by its hash.

    The patient and study attributes are stored in the study's row, for the administrator's views;
    they never enter logs, audit details or the broker.
    """

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: Path
    sha256: str
    size_bytes: int
    calling_ae: str
    peer_address: str
    received_at: datetime
    """By the receiver's clock; its row states the time of the database."""
    patient_id: str = ""
    accession_number: str = ""
    study_date: str = ""
    modality: str = ""
    priority: int = NORMAL
    """As `core.priorities` gives it to the study."""
    issuer_of_patient_id: str = ""


@dataclass(frozen=True, slots=True)
class SpooledInstance:
    """One stored instance of a closed study."""

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    series_uid: str
    sha256: str = ""
    """Of the file as received; empty if none was recorded."""


@dataclass(frozen=True, slots=True)
class ClosedStudy:
    """One closed revision of a study, to be graded."""

    study_uid: str
    revision_id: str
    revision_number: int
    instances: tuple[SpooledInstance, ...]
    superseded_reports: tuple[tuple[str, str], ...] = ()
    """(SOP Class UID, SOP Instance UID) of the SRs of earlier revisions that are superseded."""
