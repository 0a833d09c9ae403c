"""What must hold at the end: nothing lost, doubled or stuck, no patient in any log."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from core.settings import load_settings
from db.consistency.files import check_files
from db.consistency.records import check_records
from db.enums import DeliveryState, RevisionState
from db.models import Delivery, DeliveryObject, Instance, ReportObjectRow, Revision
from db.retention.leftovers import remove_leftovers
from db.session import unit_of_work
from tests.faults.campaign.senders import CANARY, read_journals
from tests.support.builders.made_study import encoded_data_set

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.campaign.site import Site

_FINISHED: Final = (RevisionState.DELIVERED, RevisionState.COMMITTED, RevisionState.REJECTED)
OVERDUE_S: Final = 60.0


@dataclass
class Found:
    """Counts, and what is wrong, by the kind of the violation."""

    counts: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        """All of it."""
        return [*self.lost, *self.doubled, *self.stuck, *self.other]


def is_drained(site: Site) -> bool:
    """Whether nothing waits any more, except for a person."""
    with unit_of_work(site.engine, read_only=True) as session:
        open_revisions = select(Revision.id).where(
            Revision.state.not_in((*_FINISHED, RevisionState.FAILED, RevisionState.GRADED))
        )
        open_deliveries = select(Delivery.id).where(
            Delivery.state.in_((DeliveryState.PENDING, DeliveryState.SENDING))
        )
        return not any(
            session.scalars(query.limit(1)).all() for query in (open_revisions, open_deliveries)
        )


def check(site: Site) -> Found:
    """Check everything that must hold once the node is drained."""
    found = Found()
    settings = load_settings(**{k: str(v) for k, v in site.settings.items()})
    for verdict in check_records(site.engine, settings, overdue_s=OVERDUE_S):
        found.other += [f"{verdict.invariant}: {each}" for each in verdict.examples]
    # Of killed attempts; the housekeeper would remove them after a day.
    left = remove_leftovers(site.engine, settings.reports_dir, older_than_s=0.0)
    found.counts["report files of killed attempts, removed"] = left
    for verdict in check_files(site.engine, settings, in_flight_s=0.0, hashed=None):
        found.other += [f"{verdict.invariant}: {each}" for each in verdict.examples]
    _check_acknowledged(site, found)
    _check_revisions(site, found)
    _check_archives(site, found)
    found.other += _find_canary_in_redis(site)
    return found


def _check_acknowledged(site: Site, found: Found) -> None:
    with unit_of_work(site.engine, read_only=True) as session:
        stored = select(Instance.sop_instance_uid, Instance.path)
        rows = {row.sop_instance_uid: row.path for row in session.execute(stored)}
    for instance in read_journals(site.folder):
        found.counts["instances acknowledged"] += 1
        path = Path(rows.get(instance.uid, ""))
        if instance.uid not in rows or not path.exists():
            found.lost.append(f"acknowledged, and gone: {instance.uid}")
        elif hashlib.sha256(encoded_data_set(path.read_bytes())).hexdigest() != instance.sha256:
            found.lost.append(f"acknowledged, and other content: {instance.uid}")


def _check_revisions(site: Site, found: Found) -> None:
    with unit_of_work(site.engine, read_only=True) as session:
        revisions = session.scalars(select(Revision)).all()
        reports = Counter(
            session.scalars(select(ReportObjectRow.revision_id).where(ReportObjectRow.kind == "sr"))
        )
        deliveries = session.scalars(select(Delivery)).all()
    found.counts["studies"] = len({revision.study_uid for revision in revisions})
    found.counts["revisions"] = len(revisions)
    found.counts["attempts repeated"] = sum(max(0, each.token - 1) for each in revisions)
    for revision in revisions:
        if revision.state not in _FINISHED:
            found.stuck.append(f"revision {revision.id} is {revision.state}: {revision.reason}")
        elif reports[revision.id] != 1:
            found.doubled.append(f"revision {revision.id} has {reports[revision.id]} reports")
    found.counts["deliveries"] = len(deliveries)
    for delivery in deliveries:
        if delivery.state is not DeliveryState.DELIVERED:
            why = f"{delivery.state}: {delivery.last_error}"
            found.stuck.append(f"delivery {delivery.id} is {why}")


def _check_archives(site: Site, found: Found) -> None:
    """Each has every report that it should have, with the bytes on disk, and nothing else."""
    expected: dict[str, dict[str, str]] = defaultdict(dict)
    with unit_of_work(site.engine, read_only=True) as session:
        rows: Any = session.execute(
            select(Delivery.destination, ReportObjectRow.sop_instance_uid, ReportObjectRow.path)
            .join(DeliveryObject, DeliveryObject.delivery_id == Delivery.id)
            .join(ReportObjectRow, ReportObjectRow.id == DeliveryObject.report_object_id)
        ).all()
    for destination, uid, path in rows:
        content = Path(path).read_bytes() if Path(path).exists() else b""
        data_set = encoded_data_set(content) if content else b""
        expected[destination][uid] = hashlib.sha256(data_set).hexdigest()
    for archive in site.archives:
        name = archive.destination.name
        wanted = expected[name]
        found.counts["objects in archives"] += len(archive.data_sets)
        found.counts["objects sent again"] += len(archive.arrivals) - len(archive.contents)
        for uid, sha256 in wanted.items():
            if uid not in archive.data_sets:
                found.lost.append(f"not in the archive {name}: {uid}")
            elif archive.contents[uid] != {sha256}:
                found.doubled.append(f"other bytes in the archive {name}: {uid}")
        for uid in set(archive.contents) - set(wanted):
            found.doubled.append(f"of no report, in the archive {name}: {uid}")


def _find_canary_in_redis(site: Site) -> Iterator[str]:
    with site.redis_client() as client:
        for key in client.scan_iter():
            kind = client.type(key)
            values: Any = b""
            if kind == b"list":
                values = client.lrange(key, 0, -1)
            elif kind == b"set":
                values = client.smembers(key)
            elif kind == b"hash":
                values = client.hgetall(key)
            elif kind == b"string":
                values = client.get(key)
            if _has_canary(repr((key, values)).encode()):
                yield f"patient data in Redis: {key!r}"


def find_canary_in_logs(site: Site) -> Iterator[str]:
    """Search what was written outside database, spool and reports: logs, crash output, cores."""
    stored = ("spool", "reports")
    for path in site.folder.rglob("*"):
        inside = path.relative_to(site.folder).parts
        if not path.is_file() or (inside[:1] == ("data",) and inside[1] in stored):
            continue
        if path.name.startswith("epvs.sqlite"):
            continue
        if _has_canary(path.read_bytes()):
            yield f"patient data in {'/'.join(inside)}"


def _has_canary(content: bytes) -> bool:
    folded = content.lower()
    return any(each.lower().encode() in folded for each in CANARY)
