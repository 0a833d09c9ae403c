"""Instances are stored as they were sent, each with one file and one row."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread
from sqlalchemy import update

from db.clock import current_time
from db.enums import RevisionState
from db.models import Revision
from db.retention.policy import Policy
from db.retention.pruning import prune
from db.session import create_engine, unit_of_work
from tests.support.builders.mr_series import PATIENT_ID, PATIENT_NAME, make_image, write_series
from tests.support.clients.scu import association, data_set_of, dcmtk, send_raw
from tests.support.paths import SAMPLE_DATA
from tests.support.servers.receiver import run_receiver

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.servers.receiver import ReceiverProcess


def check_stored(receiver: ReceiverProcess, sent: Iterable[Path]) -> None:
    """Check that files, rows and sent instances are the same, byte for byte."""
    rows = {row.sop_instance_uid: row for row in receiver.instances()}
    sent_by_uid = {}
    for path in sent:
        data_set = dcmread(path, stop_before_pixels=True)
        sent_by_uid[data_set.SOPInstanceUID] = path
        row = rows[data_set.SOPInstanceUID]
        assert row.study_uid == data_set.StudyInstanceUID
        assert row.series_uid == data_set.SeriesInstanceUID
        assert row.modality == data_set.Modality
        assert row.calling_ae == "PACS"
    assert rows.keys() == sent_by_uid.keys()
    assert receiver.files() == {
        receiver.spool / row.sha256[:2] / f"{row.sha256}.dcm" for row in rows.values()
    }
    for uid, row in rows.items():
        assert Path(row.path) == receiver.spool / row.sha256[:2] / f"{row.sha256}.dcm"
        content = Path(row.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row.sha256
        assert len(content) == row.size_bytes
        stored, original = dcmread(row.path), dcmread(sent_by_uid[uid])
        assert stored == original  # every element, pixel data included
        assert stored.file_meta.TransferSyntaxUID == row.transfer_syntax_uid


@pytest.mark.parametrize("program", ["storescu", "dcmsend"])
def test_stores_what_dcmtk_sends(receiver: ReceiverProcess, tmp_path: Path, program: str) -> None:
    paths = write_series(tmp_path / "series", 5)

    sent = dcmtk(program, receiver.port, *paths)

    assert sent.returncode == 0, sent.stderr
    check_stored(receiver, paths)


@pytest.mark.sample_data
@pytest.mark.parametrize("program", ["storescu", "dcmsend"])
def test_stores_the_real_study(receiver: ReceiverProcess, program: str) -> None:
    paths = sorted((SAMPLE_DATA / "study-brain-siemens").rglob("*.dcm"))
    assert len(paths) == 84

    sent = dcmtk(program, receiver.port, *paths)

    assert sent.returncode == 0, sent.stderr
    check_stored(receiver, paths)


@pytest.mark.sample_data
def test_stores_real_files_in_the_syntax_they_have(receiver: ReceiverProcess) -> None:
    paths = sorted((SAMPLE_DATA / "syntaxes").rglob("*.dcm"))
    seen = set()
    for path in paths:
        image = dcmread(path, stop_before_pixels=True)
        syntax = image.file_meta.TransferSyntaxUID
        if image.SOPInstanceUID in seen:  # one image in several syntaxes: these would conflict
            continue
        seen.add(image.SOPInstanceUID)
        with association(receiver.port, [(image.SOPClassUID, syntax)]) as assoc:
            status = send_raw(assoc, data_set_of(path), image.SOPInstanceUID, image.SOPClassUID)
        assert status == 0x0000, path
        row = next(r for r in receiver.instances() if r.sop_instance_uid == image.SOPInstanceUID)
        assert row.transfer_syntax_uid == syntax
        assert data_set_of(Path(row.path)) == data_set_of(path)
    assert len(seen) > 1


def test_concurrent_associations_share_commits_without_loss(
    receiver: ReceiverProcess, tmp_path: Path
) -> None:
    studies = [write_series(tmp_path / str(n), 12, study=f"1.2.{n}") for n in range(1, 7)]

    with ThreadPoolExecutor() as pool:
        sent = list(pool.map(lambda paths: dcmtk("storescu", receiver.port, *paths), studies))

    assert [process.returncode for process in sent] == [0] * 6
    check_stored(receiver, [path for paths in studies for path in paths])


def test_studies_may_be_interleaved_and_spread_over_associations(
    receiver: ReceiverProcess, tmp_path: Path
) -> None:
    studies = [write_series(tmp_path / str(n), 12, study=f"1.2.{n}") for n in range(1, 4)]
    in_turns = [path for paths in zip(*studies, strict=True) for path in paths]
    parts = [in_turns[n : n + 9] for n in range(0, 36, 9)]  # each holds some of every study

    with ThreadPoolExecutor() as pool:
        sent = list(pool.map(lambda paths: dcmtk("storescu", receiver.port, *paths), parts))

    assert [process.returncode for process in sent] == [0] * 4
    check_stored(receiver, in_turns)
    revisions = {(row.study_uid, row.first_revision_id) for row in receiver.instances()}
    assert len(revisions) == 3


def test_the_same_bytes_again_are_no_new_work(receiver: ReceiverProcess, tmp_path: Path) -> None:
    paths = write_series(tmp_path / "series", 3)
    assert dcmtk("storescu", receiver.port, *paths).returncode == 0

    again = dcmtk("storescu", receiver.port, "-aet", "OTHERPACS", *paths)

    assert again.returncode == 0, again.stderr
    check_stored(receiver, paths)
    assert receiver.quarantined() == []


def test_a_removed_instance_that_is_sent_again_is_kept_again(
    receiver: ReceiverProcess, tmp_path: Path
) -> None:
    paths = write_series(tmp_path / "series", 3)
    assert dcmtk("storescu", receiver.port, *paths).returncode == 0
    engine = create_engine(receiver.database_url)
    with unit_of_work(engine) as session:
        session.execute(update(Revision).values(state=RevisionState.REJECTED))
    with unit_of_work(engine, read_only=True) as session:
        later = current_time(session) + timedelta(days=1)
    prune(engine, Policy(timedelta(0), None, None, None), now=later)
    engine.dispose()
    assert receiver.files() == set()
    assert all(row.removed_at for row in receiver.instances())

    again = dcmtk("storescu", receiver.port, *paths)

    assert again.returncode == 0, again.stderr
    check_stored(receiver, paths)
    assert not any(row.removed_at for row in receiver.instances())
    assert receiver.quarantined() == []


def test_other_bytes_under_a_known_uid_are_quarantined(
    receiver: ReceiverProcess, tmp_path: Path
) -> None:
    (path,) = write_series(tmp_path / "series", 1)
    assert dcmtk("storescu", receiver.port, path).returncode == 0
    (first,) = receiver.instances()
    changed = make_image()
    changed.PixelData = bytes(len(changed.PixelData))
    changed.save_as(tmp_path / "changed.dcm", enforce_file_format=True)

    answer = dcmtk("storescu", receiver.port, tmp_path / "changed.dcm")

    assert answer.returncode == 0, answer.stderr
    assert [row.sha256 for row in receiver.instances()] == [first.sha256]
    (quarantined,) = receiver.quarantined()
    assert dcmread(quarantined.path) == changed
    assert len(receiver.audit("instance-quarantined")) == 1


def test_the_log_names_no_patient(receiver: ReceiverProcess, tmp_path: Path) -> None:
    assert dcmtk("storescu", receiver.port, *write_series(tmp_path / "series", 2)).returncode == 0
    with association(receiver.port) as assoc:
        send_raw(assoc, b"\x08\0\x18\0UI\x20\0" + PATIENT_NAME.encode() * 3, PATIENT_NAME)

    log = receiver.log.read_text()
    assert "instance-refused" in log
    for secret in (PATIENT_ID, PATIENT_NAME, "Canary"):
        assert secret not in log


def test_rules_give_studies_their_priority(tmp_path: Path) -> None:
    urgent, routine = make_image("1.2.3"), make_image("1.2.4")
    urgent.RequestedProcedurePriority = "STAT"
    for image in (urgent, routine):
        image.save_as(tmp_path / f"{image.SOPInstanceUID}.dcm", enforce_file_format=True)
    with run_receiver(tmp_path / "node", priority_rules="1:requested=STAT,7:ae=PACS") as receiver:
        sent = dcmtk("dcmsend", receiver.port, *tmp_path.glob("*.dcm"))
        assert sent.returncode == 0, sent.stderr
        priorities = {row.study_uid: row.priority for row in receiver.revisions()}
    assert priorities == {"1.2.3": 1, "1.2.4": 7}
