"""The checks at the end of a fault campaign find what they are for."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, update

from core.destinations import parse_dicom_destination
from db.delivery import claims
from db.enums import DeliveryState, Proof, RevisionState
from db.grading.leases import claim_revision
from db.grading.results import load_closed_study, store_graded
from db.models import Delivery, ReportObjectRow, Revision
from db.receiving.closing import close_quiet_studies
from db.receiving.intake import record_instances
from db.session import unit_of_work
from receiver.spool import Spool
from tests.faults.campaign import checks
from tests.faults.campaign.archives import Archive
from tests.faults.campaign.senders import CANARY, images
from tests.support.builders import records as made
from tests.support.builders.made_study import encoded_data_set, make_graded
from tests.support.clients import upper_layer as ul
from worker.grading.report_files import write_report_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Engine

STUDY = "2.25.77"
DESTINATION = "PACS@127.0.0.1:4242"


@pytest.fixture
def site(database_engine: Engine, tmp_path: Path) -> Any:
    """A site after a campaign in which one study was received, graded and delivered."""
    data_dir = tmp_path / "site" / "data"
    spool = Spool(data_dir / "spool", 0)
    spool.prepare()
    archive = Archive(1)
    archive.destination = parse_dicom_destination(DESTINATION)
    now = datetime.now(UTC)
    with unit_of_work(database_engine) as session:
        (tmp_path / "site" / "acknowledged-0.jsonl").touch()
        for number, image in enumerate(images(STUDY, range(3))):
            with spool.create(ul.MR_IMAGE, image.uid, ul.EXPLICIT) as file:
                file.write(image.data_set)
                stored = file.commit()
            values: dict[str, Any] = {
                "path": stored.path,
                "sha256": stored.sha256,
                "received_at": now,
            }
            values |= {"size_bytes": stored.size_bytes, "sop_instance_uid": image.uid}
            record_instances(session, [made.instance(number, study=STUDY, **values)])
            sha256 = hashlib.sha256(image.data_set).hexdigest()
            acknowledge(tmp_path / "site", uid=image.uid, sha256=sha256)
        (revision_id,) = close_quiet_studies(session, now=now, quiet_period_s=0, max_open_s=1)
        claim = claim_revision(session, revision_id, now=now, lease_s=9, max_attempts=3)
        assert claim is not None
        graded = make_graded(load_closed_study(session, revision_id))
        paths = write_report_files(graded.report, data_dir / "reports")
        destinations = [archive.destination]
        store_graded(session, claim, graded, paths=paths, destinations=destinations, now=now)
        delivery_id = session.scalars(select(Delivery.id)).one()
        held = claims.claim_delivery(session, delivery_id, now=now, lease_s=9)
        assert held is not None
        claims.record_delivered(session, held, now=now, proof=Proof.C_FIND, statuses={})
    for item in graded.report.objects:
        data_set = encoded_data_set(item.content)
        archive.data_sets[item.sop_instance_uid] = data_set
        archive.contents[item.sop_instance_uid] = {hashlib.sha256(data_set).hexdigest()}
        archive.arrivals.append(item.sop_instance_uid)
    url = database_engine.url.render_as_string(hide_password=False)
    return SimpleNamespace(
        engine=database_engine,
        folder=tmp_path / "site",
        data_dir=data_dir,
        settings={"data_dir": data_dir, "database_url": url},
        archives=[archive],
        redis_client=RedisWith,
    )


class RedisWith:
    """A client of a Redis that has one list."""

    values: tuple[bytes, ...] = (b'["0123456789abcdef"]',)

    def __enter__(self) -> RedisWith:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def scan_iter(self) -> list[bytes]:
        return [b"epvs"]

    def type(self, _key: bytes) -> bytes:
        return b"list"

    def lrange(self, _key: bytes, _first: int, _last: int) -> tuple[bytes, ...]:
        return self.values


def acknowledge(folder: Path, *, uid: str, sha256: str) -> None:
    with (folder / "acknowledged-0.jsonl").open("a") as file:
        file.write(json.dumps({"study_uid": STUDY, "uid": uid, "sha256": sha256}) + "\n")


def test_a_campaign_without_a_violation(site: Any) -> None:
    found = checks.check(site)
    assert found.wrong == []
    assert found.counts["instances acknowledged"] == 3
    assert found.counts["objects in archives"] == 2
    assert checks.is_drained(site)
    assert list(checks.find_canary_in_logs(site)) == []


def remove_file(site: Any) -> None:
    next((site.data_dir / "spool").rglob("*.dcm")).unlink()


def change_row(table: Any, **values: Any) -> Callable[[Any], None]:
    def apply(site: Any) -> None:
        with unit_of_work(site.engine) as session:
            session.execute(update(table).values(**values))

    return apply


def resend_other_bytes(site: Any) -> None:
    next(iter(site.archives[0].contents.values())).add("other")


def forget_report(site: Any) -> None:
    with unit_of_work(site.engine) as session:
        position = select(ReportObjectRow.id).where(ReportObjectRow.kind == "sr")
        session.execute(
            update(ReportObjectRow).where(ReportObjectRow.id.in_(position)).values(kind="sc")
        )


CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "acknowledged, without a row": (
        lambda site: acknowledge(site.folder, uid="1.2.3", sha256=""),
        "lost",
    ),
    "file gone": (remove_file, "lost"),
    "file has other content": (
        lambda site: acknowledge(site.folder, uid=f"{STUDY}.1.0", sha256="other"),
        "lost",
    ),
    "not graded": (change_row(Revision, state=RevisionState.QUEUED), "stuck"),
    "not delivered": (change_row(Delivery, state=DeliveryState.PENDING), "stuck"),
    "without a report": (forget_report, "doubled"),
    "archive lost it": (lambda site: site.archives[0].data_sets.popitem(), "lost"),
    "archive got other bytes": (resend_other_bytes, "doubled"),
    "archive got another report": (
        lambda site: site.archives[0].contents.update({"1.2.3": {"a"}}),
        "doubled",
    ),
    "notification left": (
        lambda site: change_row(Delivery, state=DeliveryState.SENDING)(site),
        "other",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_wrong_is_found(site: Any, change: str) -> None:
    apply, kind = CHANGES[change]
    apply(site)
    assert getattr(checks.check(site), kind)


def test_patient_data_in_redis_and_logs_are_found(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RedisWith, "values", (CANARY[0].lower().encode(),))
    assert checks.check(site).other == ["patient data in Redis: b'epvs'"]
    (site.data_dir / "epvs-node-crash-1.txt").write_text(f"ValueError: {CANARY[1]}")
    (site.folder / "worker.log").write_text("grading revision=1")
    found = list(checks.find_canary_in_logs(site))
    assert found == ["patient data in data/epvs-node-crash-1.txt"]
