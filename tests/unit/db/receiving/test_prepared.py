"""Prepared statements: SQLAlchemy's dialects and types, the driver's speed, our errors."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import bindparam, select, update

from db.enums import RevisionState
from db.models import Base, Revision, Study
from db.receiving.intake import record_instances
from db.receiving.prepared import Prepared
from db.session import insert_or_ignore_of, transaction, unit_of_work
from tests.support.builders.records import STUDY, STUDY_ROW, instance

if TYPE_CHECKING:
    from sqlalchemy import Engine

TOKYO = timezone(timedelta(hours=9))
ADD = Prepared(
    lambda dialect: insert_or_ignore_of(dialect, Base.metadata.tables["studies"]).returning(
        Study.study_uid
    ),
    columns=list(STUDY_ROW),
)


def test_values_go_through_the_types_of_their_columns(database_engine: Engine) -> None:
    moment = datetime(2026, 3, 1, 8, 0, 0, 123456, tzinfo=TOKYO)
    row = STUDY_ROW | {"patient_id": "Q'); --", "first_received_at": moment}
    with transaction(database_engine) as connection:
        assert ADD.rows(connection, row) == [(STUDY,)]
        assert ADD.rows(connection, row) == []

    with unit_of_work(database_engine, read_only=True) as session:
        study = session.get_one(Study, STUDY)
    assert study.first_received_at == moment
    assert study.patient_id == "Q'); --"


def test_what_the_statement_holds_itself_is_bound_too(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        record_instances(session, [instance(1)])
    close = Prepared(
        lambda _dialect: (
            update(Revision.__table__)  # type: ignore[arg-type]
            .where(
                Revision.study_uid == bindparam("of_study"),
                Revision.state == RevisionState.RECEIVING,
            )
            .values(state=RevisionState.CLOSED)
            .returning(Revision.state)
        )
    )
    with transaction(database_engine) as connection:
        assert close.rows(connection, {"of_study": "unknown"}) == []
        assert close.rows(connection, {"of_study": instance(1).study_uid}) == [("closed",)]
        assert close.rows(connection, {"of_study": instance(1).study_uid}) == []


def test_a_transaction_that_fails_leaves_nothing(database_engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError), transaction(database_engine) as connection:  # noqa: PT012
        ADD.rows(connection, STUDY_ROW)
        raise ZeroDivisionError
    with unit_of_work(database_engine, read_only=True) as session:
        assert session.scalars(select(Study)).all() == []
