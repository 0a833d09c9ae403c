"""The node on several hosts, one of which is cut off or has a wrong clock.

Hosts are network namespaces (`tests.support.servers.hosts`) that share PostgreSQL, Redis, Triton
and the data folder. A host that is cut off still reaches the data folder, as if only its other
links were lost: what it does there late must do no harm.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from sqlalchemy import select

from db import audit
from db.models import Instance, QuarantinedInstance, ReportObjectRow
from db.session import unit_of_work
from tests.support.builders.instances import encoded_instance
from tests.support.builders.synthetic_studies import generate_synthetic_study
from tests.support.clients import upper_layer as ul
from tests.support.servers.dcmtk import dcmtk_program
from tests.support.servers.destination import scripted_destination
from tests.support.servers.proxies import unix_socket_proxy
from tests.support.servers.site import LEASE_S
from worker.app import DELIVER, GRADE_REVISION, QUEUES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from node.embedded.triton import EmbeddedTriton
    from tests.support.servers.hosts import Host
    from tests.support.servers.site import Site

log = logging.getLogger(__name__)

STUDY = "1.2.40"
GRADE = QUEUES[GRADE_REVISION]
LOST_TRANSACTION_S = 10.0
"""After that PostgreSQL ends the transaction of a host that is gone (`db.session`)."""


@contextmanager
def associated(site: Site, host: Host, timeout_s: float = 30.0) -> Iterator[ul.Peer]:
    """An association with the receiver of a host."""
    with ul.peer(site.receiver_port, timeout_s, host.address) as peer:
        peer.associate()
        yield peer


def instance(number: int, *, study: str = STUDY, rows: int = 16) -> tuple[str, bytes]:
    """UID and data set of an MR image."""
    uid = f"{study}.1.{number}"
    pixels = np.full((rows, 512), number, np.uint16)
    return uid, encoded_instance(uid, study, pixels=pixels, accession_number="A1")


def store(site: Site, host: Host, *numbers: int, study: str = STUDY) -> list[int]:
    """Store images on one association; return the statuses."""
    statuses = []
    with associated(site, host) as peer:
        for number in numbers:
            uid, data_set = instance(number, study=study)
            peer.send(ul.store(1, data_set, uid))
            statuses.append(peer.status())
    return statuses


def write_study(folder: Path) -> str:
    """Write a study that can be graded, whose reports the scripted worker can make; its UID."""
    generate_synthetic_study(folder, seed=20)
    study_uid = ""
    shutil.rmtree(folder / "t1-mprage-sagittal")  # which would not be graded
    for path in folder.rglob("*.dcm"):
        data_set = pydicom.dcmread(path)
        data_set.PatientID, data_set.AccessionNumber = "CANARY-7", "A1"
        data_set.save_as(path)
        study_uid = str(data_set.StudyInstanceUID)
    return study_uid


def read_all(site: Site, table: Any) -> list[Any]:
    with unit_of_work(site.engine, read_only=True) as session:
        return list(session.scalars(select(table)))


def is_audit_trail_whole(site: Site) -> bool:
    with unit_of_work(site.engine, read_only=True) as session:
        return audit.verify(session).ok


def test_the_study_of_a_host_that_is_cut_off_is_reported_once_by_another(
    site: Site, triton_server: EmbeddedTriton, tmp_path: Path
) -> None:
    """The worker that takes over has the real models; the first one's result comes late."""
    folder = tmp_path / "study"
    study_uid = write_study(folder)
    front, first, second, delivering = (site.network.add_host() for _ in range(4))
    with (
        unix_socket_proxy(triton_server.url.removeprefix("unix:"), site.network.address) as triton,
        scripted_destination(address=site.network.address) as pacs,
    ):
        site.settings["triton_url"] = f"{site.network.address}:{triton.port}"
        site.settings["destinations"] = pacs.destination.name
        site.script.write(study_uid, "wait")
        for number, host in enumerate((first, delivering)):
            site.start(host, "worker.housekeeper", log=f"housekeeper-{number}")
        lost = site.start_worker(first, GRADE, "first")
        site.start_worker(delivering, QUEUES[DELIVER], "delivering")
        site.start_receiver(front, "receiver")
        subprocess.run(
            [
                *(dcmtk_program("storescu"), "-aet", "PACS", "-aec", "EPVSNODE", "+sd", "+r"),
                *(front.address, str(site.receiver_port), folder),
            ],
            check=True,
            timeout=60,
        )
        site.wait_for(lost, "attempt=1")
        taking_over = site.start_worker(second, GRADE, "second", app="worker.app")
        site.wait_for(taking_over, "ready")

        first.cut()
        cut_at = time.monotonic()
        site.wait_for(taking_over, "attempt=2")
        taken_over_s = time.monotonic() - cut_at
        site.script.write(study_uid, "")  # the first worker's grading ends now
        first.reconnect()
        site.wait_for_states("delivered")
        delivered_s = time.monotonic() - cut_at
        site.wait_for(lost, "claim lost, result dropped")

    log.info("taken over after %.1f s, delivered after %.1f s", taken_over_s, delivered_s)
    assert taken_over_s < LEASE_S + 5
    assert [row.attempt for row in site.revisions()] == [2]
    reports = [row for row in read_all(site, ReportObjectRow) if row.kind == "sr"]
    assert len(reports) == 1
    assert len(pacs.arrivals) == len(set(pacs.arrivals))
    assert reports[0].sop_instance_uid in pacs.data_sets
    assert is_audit_trail_whole(site)


def test_what_a_receiver_cut_off_was_not_able_to_store_is_taken_by_another(site: Site) -> None:
    first, second = (site.network.add_host() for _ in range(2))
    site.settings["network_timeout_s"] = 60.0  # the first one keeps its half file
    site.start_receiver(first, "first")
    uid, data_set = instance(2, rows=2048)
    message = ul.store(1, data_set, uid)
    with associated(site, first) as peer:
        stored, small = instance(1)
        peer.send(ul.store(1, small, stored))
        assert peer.status() == 0
        peer.send(message[: len(message) // 2])
        site.wait(lambda: list((site.folder / "data").glob("spool/tmp/*/*")), "half a file")
        site.start_receiver(second, "second")  # which must leave the half file alone
        assert list((site.folder / "data").glob("spool/tmp/*/*"))
        first.cut()
        peer.connection.settimeout(1.0)
        with suppress(TimeoutError):  # where the buffers do not hold the rest
            peer.send(message[len(message) // 2 :])
        with pytest.raises(TimeoutError):
            peer.status()
    assert store(site, second, 1, 3) == [0, 0]
    with associated(site, second) as peer:
        peer.send(message)
        assert peer.status() == 0
    first.reconnect()
    site.wait(lambda: not list((site.folder / "data").glob("spool/tmp/*/*")), "no half file")
    assert store(site, first, 1, 3, 4) == [0, 0, 0]
    assert {row.sop_instance_uid for row in read_all(site, Instance)} == {
        f"{STUDY}.1.{number}" for number in (1, 2, 3, 4)
    }
    assert len(site.revisions()) == 1


def test_an_instance_on_disk_is_no_success_while_the_database_is_out_of_reach(site: Site) -> None:
    """The file is durable, its row is not: the sender is told so, or nothing."""
    front = site.network.add_host()
    site.settings["database_url"] = site.settings["database_url"].replace(
        site.network.address, "192.0.2.1"
    )
    site.start_receiver(front, "receiver")
    assert store(site, front, 1) == [0xA700]


def test_receivers_on_two_hosts_store_one_study_at_once(site: Site) -> None:
    hosts = [site.network.add_host() for _ in range(2)]
    for number, host in enumerate(hosts):
        site.start_receiver(host, f"receiver-{number}")
    with ThreadPoolExecutor(4) as pool:
        sending = [
            pool.submit(store, site, hosts[k % 2], *range(10 * (k // 2), 10 * (k // 2) + 20))
            for k in range(4)
        ]
        assert [status for each in sending for status in each.result()] == [0] * 80
    assert len(read_all(site, Instance)) == 30
    assert read_all(site, QuarantinedInstance) == []
    assert len(site.revisions()) == 1
    assert is_audit_trail_whole(site)


def test_a_host_lost_within_a_transaction_holds_up_the_others_for_seconds_only(
    site: Site,
) -> None:
    lost = site.network.add_host()
    opened = site.start(lost, "tests.integration.hosts.open_transaction", log="lost")
    site.wait_for(opened, "appended")
    lost.cut()
    began = time.monotonic()
    with unit_of_work(site.engine) as session:
        audit.append(session, "appended-by-another")
    waited_s = time.monotonic() - began
    log.info("waited for %.1f s", waited_s)
    assert waited_s < LOST_TRANSACTION_S + 2
    assert is_audit_trail_whole(site)


def test_clocks_that_are_an_hour_wrong_change_nothing(site: Site) -> None:
    """An hour is many leases and quiet periods: of each, a wrong clock would make one at once."""
    front, late, keeping = (site.network.add_host() for _ in range(3))
    site.script.write(STUDY, "wait")
    site.start(keeping, "worker.housekeeper", log="housekeeper", clock="+1h")
    worker = site.start_worker(late, GRADE, "worker", clock="-1h")
    site.start_receiver(front, "receiver", clock="-1h")
    assert store(site, front, 1, 2) == [0, 0]
    site.wait_for(worker, "attempt=1")
    first_lease = site.revisions()[0].lease_until
    site.wait(lambda: site.revisions()[0].lease_until != first_lease, "a longer lease")
    site.script.write(STUDY, "")
    site.wait_for_states("delivered")
    (revision,) = site.revisions()
    assert revision.attempt == 1
    assert (revision.state_since - revision.opened_at).total_seconds() < 600
