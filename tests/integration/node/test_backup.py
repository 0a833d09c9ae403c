"""Backup and restore on SQLite and PostgreSQL, of a node with received files and reports."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from core.errors import EpvsError
from core.permissions import is_private
from core.settings import load_settings
from db import audit, grants, migrate
from db.grading.results import load_closed_study, store_graded
from db.models import Base
from db.receiving.closing import close_quiet_studies
from db.receiving.intake import record_instances
from db.session import create_engine, unit_of_work
from db.stored_files import list_stored_files
from node import deep
from node.backup import dumps
from node.backup.making import make_backup
from node.backup.restoring import restore_backup
from receiver.spool import Spool
from tests.support.builders.records import PACS, STUDY, after, claim, graded_study, instance
from tests.support.paths import ROOT
from worker.grading.report_files import write_report_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from core.settings import Settings
    from core.studies import ReceivedInstance
    from db.stored_files import StoredFile
    from tests.support.servers.postgres import PostgresServer

MR = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = "1.2.840.10008.1.2.1"
CHECKPOINTS = {"/elsewhere": {"seq": 1, "hash": "a" * 64, "at": "", "problem": ""}}


def settings_of(folder: Path, url: str, owner_url: str) -> Settings:
    values: dict[str, Any] = {"data_dir": folder, "database_url": url}
    if not url.startswith("sqlite"):
        values["database_owner_url"] = owner_url
    return load_settings(**values)


class Installation:
    """Data folder and database of a node, with one study graded and another one received."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        settings.spool_dir.mkdir(parents=True)
        self.spool = Spool(settings.spool_dir, 0)
        self.spool.prepare()

    def store(self, study: str, number: int, content: str = "") -> ReceivedInstance:
        """Store an instance as the receiver does, without its row."""
        uid = f"{study}.5.{number}"
        with self.spool.create(MR, uid, EXPLICIT) as file:
            file.write(f"pixels of {uid} {content}".encode())
            stored = file.commit()
        made: ReceivedInstance = instance(
            number,
            study=study,
            content=content,
            path=stored.path,
            sha256=stored.sha256,
            size_bytes=stored.size_bytes,
        )
        return made

    def receive(self, study: str, numbers: range) -> None:
        """Receive instances of a study."""
        with unit_of_work(self.engine) as session:
            record_instances(session, [self.store(study, number) for number in numbers])

    def grade(self, study: str) -> None:
        """Close and grade a study of which instances were received; its delivery is pending."""
        with unit_of_work(self.engine) as session:
            (revision_id,) = close_quiet_studies(
                session, now=after(30), quiet_period_s=0, max_open_s=5400
            )
            held = claim(session, revision_id)
            graded = graded_study(revision_id)
            assert graded.report is not None
            paths = write_report_files(graded.report, self.settings.reports_dir)
            identity = replace(graded.report.identity, study_uid=study)
            graded = replace(graded, report=replace(graded.report, identity=identity))
            assert store_graded(
                session, held, graded, paths=paths, destinations=[PACS], now=after(40)
            )


@pytest.fixture
def node(
    tmp_path: Path, database_url: str, owner_url: str, database_engine: Engine
) -> Installation:
    """A node with a graded study, one that is open, and an instance in quarantine."""
    made = Installation(settings_of(tmp_path / "node", database_url, owner_url), database_engine)
    made.receive(STUDY, range(1, 4))
    made.grade(STUDY)
    made.receive("1.2.5", range(1, 3))
    with unit_of_work(made.engine) as session:
        record_instances(session, [made.store("1.2.5", 1, "changed on the way")])
    return made


@pytest.fixture
def elsewhere(
    tmp_path: Path, database_kind: str, request: pytest.FixtureRequest
) -> Iterator[Settings]:
    """Settings of an empty installation with a data folder of another name."""
    folder = tmp_path / "elsewhere"
    if database_kind == "sqlite":
        yield settings_of(folder, f"sqlite:///{folder}/epvs.sqlite", "")
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create_database()
    yield settings_of(folder, server.url(name), server.owner_url(name))
    server.drop_database(name)


@contextmanager
def session_of(settings: Settings) -> Iterator[Session]:
    engine = create_engine(settings.database_url)
    try:
        with unit_of_work(engine, read_only=True) as session:
            yield session
    finally:
        engine.dispose()


def rows_of(session: Session) -> dict[str, list[Any]]:
    """Every row of every table, without the paths, and without the audit trail, which goes on."""
    found = {}
    for table in Base.metadata.sorted_tables:
        if not table.name.startswith("audit_"):
            columns = [column for column in table.columns if column.name != "path"]
            rows = session.execute(sa.select(*columns))
            found[table.name] = sorted(rows, key=repr)
    return found


def list_files(node: Installation) -> list[StoredFile]:
    with unit_of_work(node.engine, read_only=True) as session:
        return list_stored_files(session)


def assert_files_are_whole(settings: Settings) -> int:
    with session_of(settings) as session:
        files = list_stored_files(session)
    for file in files:
        assert file.path == settings.data_dir / file.name
        assert hashlib.sha256(file.path.read_bytes()).hexdigest() == file.sha256
    return len(files)


def test_a_restored_node_has_the_same_rows_files_and_audit_trail(
    node: Installation, elsewhere: Settings, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    made = make_backup(node.settings, backup, operator="ann")
    assert (made.n_studies, made.n_files, made.missing) == (2, 3 + 4 + 3, [])
    shutil.move(node.settings.data_dir, tmp_path / "lost")
    assert restore_backup(elsewhere, backup, operator="bob") == made
    assert assert_files_are_whole(elsewhere) == made.n_files
    seq, _, digest = made.audit_head.partition(":")
    with session_of(elsewhere) as session:
        verdict = audit.verify(session, [audit.KnownEvent(int(seq), digest, "the backup")])
        assert verdict.ok, verdict.problem
        assert verdict.checked == int(seq) + 1  # the restoration itself
        restored = rows_of(session)
    with unit_of_work(node.engine, read_only=True) as session:
        assert restored == rows_of(session)
    if not elsewhere.is_sqlite:
        with session_of(elsewhere) as session:
            assert grants.find_problems(session.connection()) == []
    # Its made times are long past: everything in it is overdue.
    checks = deep.examine(elsewhere, read_all=True, in_flight_s=0.0, overdue_s=1e9)
    assert [check.detail for check in checks if not check.ok or check.warning] == []


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_files_are_copied_where_links_are_impossible(
    node: Installation, elsewhere: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_paths: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    made = make_backup(node.settings, tmp_path / "backup", operator="ann")
    assert made.missing == []
    copied = tmp_path / "backup" / list_files(node)[0].name
    assert copied.stat().st_nlink == 1
    restore_backup(elsewhere, tmp_path / "backup", operator="bob")
    assert assert_files_are_whole(elsewhere) == made.n_files


def test_a_restored_node_goes_on(node: Installation, elsewhere: Settings, tmp_path: Path) -> None:
    """The open study is closed, an instance that is sent again is known, a new one is not."""
    make_backup(node.settings, tmp_path / "backup", operator="ann")
    restore_backup(elsewhere, tmp_path / "backup", operator="bob")
    engine = create_engine(elsewhere.database_url)
    with unit_of_work(engine) as session:
        record_instances(session, [node.store("1.2.5", 2), node.store("1.2.5", 3)])
        closed = close_quiet_studies(session, now=after(90), quiet_period_s=0, max_open_s=5400)
        assert len(closed) == 1
        assert len(load_closed_study(session, closed[0]).instances) == 3
    engine.dispose()


def test_a_backup_under_load_holds_every_file_that_its_database_names(
    node: Installation, elsewhere: Settings, tmp_path: Path
) -> None:
    """Instances are stored all the time, and a file is removed once the backup has begun."""
    removed = node.store("1.2.6", 1)
    with unit_of_work(node.engine) as session:
        record_instances(session, [removed])
    stop, stored = threading.Event(), 0

    def store() -> None:
        nonlocal stored
        while not stop.is_set():
            stored += 1
            node.receive("1.2.7", range(stored, stored + 1))

    sender = threading.Thread(target=store)
    dump = dumps.dump

    @contextmanager
    def dump_later(settings: Settings, folder: Path) -> Iterator[Any]:
        removed.path.unlink()
        before = stored
        deadline = time.monotonic() + 20
        while stored < before + 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with dump(settings, folder) as opened:
            yield opened

    sender.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dumps, "dump", dump_later)
            made = make_backup(node.settings, tmp_path / "backup", operator="ann")
    finally:
        stop.set()
        sender.join()
    assert made.missing == []
    assert made.n_files >= 10 + 1 + 5
    restore_backup(elsewhere, tmp_path / "backup", operator="bob")
    assert assert_files_are_whole(elsewhere) == made.n_files


def test_a_missing_or_rotten_file_is_named_and_everything_else_is_kept(
    node: Installation, elsewhere: Settings, tmp_path: Path
) -> None:
    lost, rotten, *_ = list_files(node)
    lost.path.unlink()
    rotten.path.write_bytes(b"rotten")
    made = make_backup(node.settings, tmp_path / "backup", operator="ann")
    assert made.missing == sorted([lost.name, rotten.name])
    assert not (tmp_path / "backup" / rotten.name).exists()
    assert restore_backup(elsewhere, tmp_path / "backup", operator="bob").n_files == 8


def test_a_damaged_backup_restores_nothing(
    node: Installation, elsewhere: Settings, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    made = make_backup(node.settings, backup, operator="ann")
    spooled = next(backup.glob("spool/*/*.dcm")).relative_to(backup)
    for damaged in (str(spooled), made.database, "files.sha256"):
        copy = tmp_path / "copy"
        shutil.copytree(backup, copy)
        content = (copy / damaged).read_bytes()
        (copy / damaged).write_bytes(content[:-9] + b"#" + content[-8:])
        with pytest.raises(EpvsError, match=f"damaged: {damaged}"):
            restore_backup(elsewhere, copy, operator="bob")
        (copy / damaged).unlink()
        with pytest.raises(EpvsError, match=f"damaged: {damaged}"):
            restore_backup(elsewhere, copy, operator="bob")
        shutil.rmtree(copy)
    (backup / "manifest.json").unlink()
    with pytest.raises(EpvsError, match="not finished"):
        restore_backup(elsewhere, backup, operator="bob")
    assert not elsewhere.spool_dir.exists()
    assert migrate.current_revision(elsewhere.database_url) is None


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_damaged_database_is_not_taken_for_a_backup(node: Installation, tmp_path: Path) -> None:
    node.engine.dispose()  # with the last connection, the WAL goes into the file
    database = dumps.sqlite_path(node.settings)
    content = bytearray(database.read_bytes())
    content[-3 * 4096 :] = b"rotten" * 2048
    database.write_bytes(content)
    with pytest.raises(EpvsError, match="is damaged: "):
        make_backup(node.settings, tmp_path / "backup", operator="ann")
    assert not (tmp_path / "backup" / "manifest.json").exists()


def test_only_an_empty_installation_is_restored_into(
    node: Installation, elsewhere: Settings, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    make_backup(node.settings, backup, operator="ann")
    with pytest.raises(EpvsError, match="holds files already"):
        restore_backup(node.settings, backup, operator="bob")
    with pytest.raises(EpvsError, match=r"exists already|has tables already"):
        restore_backup(
            node.settings.model_copy(update={"data_dir": tmp_path / "fresh"}),
            backup,
            operator="bob",
        )
    with pytest.raises(EpvsError, match="is not empty"):
        make_backup(node.settings, backup, operator="ann")
    assert not elsewhere.spool_dir.exists()


def test_a_backup_of_another_version_is_refused(
    node: Installation, elsewhere: Settings, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    make_backup(node.settings, backup, operator="ann")
    manifest = json.loads((backup / "manifest.json").read_text())
    for changes, said in (
        ({"schema": "0006", "node_version": "0.1.0"}, "with version 0.1.0, then upgrade"),
        ({"schema": "9999", "node_version": "9.9.0"}, "with version 9.9.0."),
        ({"format": 2, "node_version": "9.9.0"}, "with epvs-node 9.9.0."),
        ({"database": "other"}, "of the same kind"),
    ):
        (backup / "manifest.json").write_text(json.dumps(manifest | changes))
        with pytest.raises(EpvsError, match=said):
            restore_backup(elsewhere, backup, operator="bob")
    with unit_of_work(node.engine, read_only=True) as session:
        assert audit.verify(session).ok


def test_the_commands(node: Installation, elsewhere: Settings, tmp_path: Path) -> None:
    """As an operator types them; the folder is for its account only, and has no password."""

    def run(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
        url = settings.database_url.replace("@", ":s3cret@")
        owner_url = settings.database_owner_url.replace("@", ":s3cret@")
        values = {"DATA_DIR": str(settings.data_dir), "DATABASE_URL": url}
        if owner_url:
            values["DATABASE_OWNER_URL"] = owner_url
        return subprocess.run(
            [sys.executable, "-m", "node", *arguments],
            cwd=ROOT,
            env=os.environ | {f"EPVS_{name}": value for name, value in values.items()},
            capture_output=True,
            text=True,
            check=False,
        )

    backup = tmp_path / "backup"
    node.settings.audit_status_file.write_text(json.dumps(CHECKPOINTS))
    done = run(node.settings, "backup", str(backup))
    assert done.returncode == 0, done.stderr
    assert "2 studies, 10 files" in done.stdout
    assert is_private(backup)
    texts = (backup / "manifest.json").read_text() + (backup / "files.sha256").read_text()
    assert "s3cret" not in texts + done.stdout + done.stderr
    check = subprocess.run(["sha256sum", "--quiet", "-c", "files.sha256"], cwd=backup, check=False)
    assert check.returncode == 0
    done = run(elsewhere, "restore", str(backup))
    assert done.returncode == 0, done.stderr
    assert json.loads(elsewhere.audit_status_file.read_text()) == CHECKPOINTS
    head = done.stdout.rpartition("--head ")[2].strip()
    verified = run(elsewhere, "audit", "verify", "--head", head)
    assert verified.returncode == 0, verified.stderr
    refused = run(elsewhere, "restore", str(backup))
    assert refused.returncode == 1
    assert "another EPVS_DATA_DIR" in " ".join(refused.stderr.split())


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_programs_that_are_missing_or_too_old_are_named(
    node: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(EpvsError, match="pg_dump is not on the PATH"):
        make_backup(node.settings, tmp_path / "first", operator="ann")
    program = folder / "pg_dump"
    program.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.1'\n")
    program.chmod(0o755)
    with pytest.raises(EpvsError, match="is older than"):
        make_backup(node.settings, tmp_path / "second", operator="ann")
