"""Objects that each destination is sent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from core.destinations import parse_destination, sr_variants
from db.delivery import claims
from db.grading.results import store_graded
from db.models import Delivery
from db.receiving.intake import record_instances
from db.session import unit_of_work
from tests.support.builders import records
from tests.support.builders.records import (
    ARCHIVE,
    PACS,
    after,
    grade_study,
    graded_study,
    instance,
    queue_study,
    reject_study,
    report_srs,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session


def sent(session: Session) -> dict[str, list[str]]:
    """Claim every delivery; return the last part of each object's UID by destination."""
    found: dict[str, list[str]] = {}
    for row in session.scalars(select(Delivery)).all():
        claim = claims.claim_delivery(session, row.id, now=after(41), lease_s=60)
        assert claim is not None
        found[claim.destination] = [o.sop_instance_uid.split(".")[-1] for o in claim.objects]
    return found


def test_each_destination_receives_the_objects_that_it_asks_for(database_engine: Engine) -> None:
    ris = parse_destination("hl7://127.0.0.1:2575")
    with unit_of_work(database_engine) as session:
        grade_study(session, queue_study(session), PACS, ARCHIVE, ris, at=40)
        assert sent(session) == {
            PACS.name: ["2", "3"],  # picture, SR
            ARCHIVE.name: ["1", "4"],  # map, 3D SR with the map
            ris.name: ["3"],
        }


def test_only_destinations_that_ask_for_it_receive_the_report_without_grade(
    database_engine: Engine,
) -> None:
    three_d = parse_destination("A@127.0.0.1:1?notgraded=1&sr=comprehensive3d&pm=1")
    ris = parse_destination("hl7://127.0.0.1:2575?notgraded=1")
    with unit_of_work(database_engine) as session:
        reject_study(session, queue_study(session), PACS, three_d, ris)
        assert sent(session) == {three_d.name: ["4"], ris.name: ["3"]}


def test_the_sender_of_a_study_receives_its_results_once(database_engine: Engine) -> None:
    sender, other_port = "SCANNER@192.0.2.10:104", "SCANNER@192.0.2.10:105"
    asked = [parse_destination(text) for text in ("*@*:104", "*@*:105", f"{sender}?sc=0")]
    with unit_of_work(database_engine) as session:
        grade_study(session, queue_study(session), *asked, at=40)
        assert sent(session) == {sender: ["3"], other_port: ["2", "3"]}


def test_the_sender_is_the_caller_that_opened_the_study(database_engine: Engine) -> None:
    with unit_of_work(database_engine) as session:
        other = {"calling_ae": "AAA", "peer_address": "192.0.2.1"}
        record_instances(session, [instance(9), instance(8, **other)])
        grade_study(session, queue_study(session), parse_destination("*@*:104"), at=40)
        assert list(sent(session)) == ["SCANNER@192.0.2.10:104"]


def test_no_destination_receives_an_sr_that_refers_to_a_map_it_lacks(
    database_engine: Engine,
) -> None:
    options = ("", "?pm=1", "?sr=comprehensive3d", "?sr=comprehensive3d&pm=1&sc=0")
    destinations = [parse_destination(f"A{n}@127.0.0.1:1{o}") for n, o in enumerate(options)]
    with unit_of_work(database_engine) as session:
        held = records.claim(session, queue_study(session))
        graded = graded_study(held.revision_id)
        the_map, picture, *_ = graded.report.objects
        variants = sr_variants(destinations, graded=True)
        objects = (the_map, picture, *report_srs("2.25.1", variants))
        assert store_graded(
            session,
            held,
            replace(graded, report=replace(graded.report, objects=objects)),
            paths=[Path(f"/reports/{o.sop_instance_uid}") for o in objects],
            destinations=destinations,
            now=after(40),
        )
        assert list(sent(session).values()) == [["2", "5"], ["1", "2", "3"], ["2", "6"], ["1", "4"]]


def test_a_report_without_the_variant_of_a_destination_is_not_planned(
    database_engine: Engine,
) -> None:
    other = parse_destination("A@127.0.0.1:1?sr=comprehensive3d")
    with (
        pytest.raises(LookupError, match="no SR of the variant"),
        unit_of_work(database_engine) as session,
    ):
        grade_study(session, queue_study(session), other, at=40)
