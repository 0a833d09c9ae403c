"""Full disk, silent database, lost connections, stops: nothing is lost or left incomplete."""

from __future__ import annotations

import socket
import sqlite3
import threading
from typing import TYPE_CHECKING

from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from receiver.status import Status
from tests.support.builders.mr_series import make_image, write_series
from tests.support.clients.scu import association, data_set_of, dcmtk, send_beginning, send_raw
from tests.support.servers.receiver import (
    ReceiverProcess,
    accepts_connections,
    run_receiver,
    wait_until,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers.postgres import PostgresServer


def encoded_image(number: int = 1, size: int = 32) -> tuple[bytes, str]:
    image = make_image(number=number, size=size)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, image)
    return bytes(buffer.getvalue()), str(image.SOPInstanceUID)


def test_a_database_that_does_not_answer(tmp_path: Path) -> None:
    with run_receiver(tmp_path, network_timeout_s="4") as receiver:
        with association(receiver.port) as assoc:
            assert send_raw(assoc, *encoded_image(1)) == Status.SUCCESS
            lock = sqlite3.connect(tmp_path / "epvs.sqlite", isolation_level=None)
            lock.execute("BEGIN EXCLUSIVE")
            refused = send_raw(assoc, *encoded_image(2))
            rows_meanwhile = len(receiver.instances())
            lock.execute("ROLLBACK")
            again = send_raw(assoc, *encoded_image(2))

        assert refused == Status.OUT_OF_RESOURCES
        assert rows_meanwhile == 1
        assert again == Status.SUCCESS
        assert len(receiver.instances()) == len(receiver.files()) == 2


def test_a_database_server_that_stops_and_comes_back(
    tmp_path: Path, postgres_server: PostgresServer, postgres_template: str
) -> None:
    url = postgres_server.url(postgres_server.create_database(postgres_template))
    url = url.replace("postgresql://", "postgresql+psycopg://")
    paths = write_series(tmp_path / "series", 4)
    with run_receiver(tmp_path / "node", database_url=url) as receiver:
        assert dcmtk("storescu", receiver.port, *paths[:2]).returncode == 0
        with association(receiver.port) as assoc:
            postgres_server.stop()
            try:
                refused = [send_raw(assoc, *encoded_image(number)) for number in (1, 3)]
            finally:
                postgres_server.start()
            again = send_raw(assoc, *encoded_image(3))
        assert dcmtk("storescu", receiver.port, *paths).returncode == 0

        assert refused == [Status.OUT_OF_RESOURCES] * 2
        assert again == Status.SUCCESS
        assert len(receiver.instances()) == len(receiver.files()) == 4
        assert receiver.quarantined() == []


def test_a_database_that_has_no_tables(tmp_path: Path) -> None:
    with (
        run_receiver(tmp_path) as receiver,
        association(receiver.port) as assoc,
    ):
        database = sqlite3.connect(tmp_path / "epvs.sqlite", isolation_level=None)
        database.execute("ALTER TABLE instances RENAME TO elsewhere")
        refused = send_raw(assoc, *encoded_image())
        database.execute("ALTER TABLE elsewhere RENAME TO instances")

        assert refused == Status.OUT_OF_RESOURCES
        assert send_raw(assoc, *encoded_image()) == Status.SUCCESS
        assert len(receiver.instances()) == len(receiver.files()) == 1


def test_a_full_disk_leaves_no_partial_file(tmp_path: Path) -> None:
    with (
        run_receiver(tmp_path, largest_file_bytes=3_000_000) as receiver,
        association(receiver.port) as assoc,
    ):
        refused = send_raw(assoc, *encoded_image(1, size=1500))
        files_after_refusal = receiver.files()
        sound = send_raw(assoc, *encoded_image(2))

        assert refused == Status.OUT_OF_RESOURCES
        assert files_after_refusal == set()
        assert sound == Status.SUCCESS
        assert len(receiver.instances()) == len(receiver.files()) == 1


def test_a_transfer_cut_off_leaves_nothing(receiver: ReceiverProcess) -> None:
    data, uid = encoded_image(1, size=256)
    with association(receiver.port) as assoc:
        send_beginning(assoc, data, uid)
        assoc.abort()
    with association(receiver.port) as assoc:
        send_beginning(assoc, data, uid)
        connection = assoc.dul.socket.socket  # type: ignore[union-attr]
        assert connection is not None
        connection.shutdown(socket.SHUT_RDWR)

    assert dcmtk("echoscu", receiver.port).returncode == 0
    assert receiver.files() == set()
    assert receiver.instances() == []


def test_files_left_by_a_kill_are_removed_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "spool" / "tmp" / "3").mkdir(parents=True)
    (tmp_path / "spool" / "tmp" / "3" / "0123").write_bytes(b"half")

    with run_receiver(tmp_path) as receiver:
        assert receiver.files() == set()


def test_a_stop_lets_open_associations_finish(tmp_path: Path) -> None:
    codes: list[int] = []
    with run_receiver(tmp_path) as receiver:
        with association(receiver.port) as assoc:
            assert send_raw(assoc, *encoded_image(1)) == Status.SUCCESS
            stopping = threading.Thread(target=lambda: codes.append(receiver.stop()))
            stopping.start()
            wait_until(lambda: not accepts_connections(receiver.port))
            late = send_raw(assoc, *encoded_image(2))
        stopping.join()

        assert late == Status.SUCCESS
        assert codes == [0]
        assert len(receiver.instances()) == len(receiver.files()) == 2


def test_a_stop_aborts_what_does_not_finish(tmp_path: Path) -> None:
    data, uid = encoded_image(1, size=256)
    with run_receiver(tmp_path) as receiver:
        with association(receiver.port) as assoc:
            send_beginning(assoc, data, uid)
            assert receiver.stop() == 0
            wait_until(lambda: assoc.is_aborted)

        assert receiver.files() == set()
        assert receiver.instances() == []


def test_a_restart_keeps_what_was_stored(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "series", 2)
    for expected in (1, 2):
        with run_receiver(tmp_path / "node") as receiver:
            assert dcmtk("storescu", receiver.port, *paths[:expected]).returncode == 0
            assert receiver.stop() == 0
            assert len(receiver.instances()) == len(receiver.files()) == expected
    assert {data_set_of(path) for path in receiver.files()} == {data_set_of(p) for p in paths}
