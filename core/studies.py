"""A study on its way from the receiver to the worker: what was received and what is to be graded.

These records carry no pixels: they are rows of the database in the form that the other parts use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ReceivedInstance:
    """One SOP instance, durable on disk as a Part 10 file named by its hash.

    The patient and study fields are what the study row keeps for the administrator's views; they
    never enter logs, audit details or the broker.
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
    patient_id: str = ""
    accession_number: str = ""
    study_date: str = ""
    modality: str = ""


@dataclass(frozen=True, slots=True)
class SpooledInstance:
    """One stored instance of a closed study, as a pipeline stage needs it."""

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    series_uid: str


@dataclass(frozen=True, slots=True)
class ClosedStudy:
    """A study that has been quiet long enough to be graded: one revision of it."""

    study_uid: str
    revision_id: str
    revision_number: int
    instances: tuple[SpooledInstance, ...]
    superseded_reports: tuple[tuple[str, str], ...] = ()
    """(SOP class UID, SOP instance UID) of the SRs of earlier revisions that a new one replaces."""
