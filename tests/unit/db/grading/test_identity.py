from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from core.text import column_text
from db.grading.identity import find_mismatch
from db.models import Study
from db.session import unit_of_work
from tests.support.builders.records import IDENTITY, queue_study

if TYPE_CHECKING:
    from sqlalchemy import Engine


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({}, ""),
        ({"patient_id": ""}, ""),  # graded instances without Patient ID or Accession Number
        ({"accession_number": ""}, ""),
        ({"patient_id": "CANARY-8"}, "Patient ID"),
        ({"study_uid": "1.2.3"}, "Study Instance UID"),
        ({"accession_number": "A2", "patient_id": "canary-7"}, "Patient ID, Accession Number"),
    ],
)
def test_the_names_of_what_differs_are_found(
    database_engine: Engine, changes: dict[str, str], differing: str
) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        assert find_mismatch(session, revision_id, replace(IDENTITY, **changes)) == differing


def test_texts_are_compared_as_the_columns_store_them(database_engine: Engine) -> None:
    patient, accession = f" J\u00f6rg\\\u200b{'7' * 80} ", "123456789-123456789"
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        stored = {"patient_id": column_text(patient), "accession_number": accession[:16]}
        session.execute(update(Study).values(stored))
        identity = replace(IDENTITY, patient_id=patient, accession_number=accession)
        assert find_mismatch(session, revision_id, identity) == ""


def test_spaces_around_backslashes_do_not_count(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        session.execute(update(Study).values(patient_id="A \\ B"))
        assert find_mismatch(session, revision_id, replace(IDENTITY, patient_id="A\\B")) == ""
        other = replace(IDENTITY, patient_id="AB")
        assert find_mismatch(session, revision_id, other) == "Patient ID"


def test_a_study_without_patient_id_has_no_report_with_one(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        session.execute(update(Study).values(patient_id=""))
        assert find_mismatch(session, revision_id, IDENTITY) == "Patient ID"
