"""Attack: the owner of the database rewrites the audit trail and computes all hashes anew.

The chain alone cannot show that. Signed checkpoints kept elsewhere do, up to the newest of them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

import pytest
from sqlalchemy import insert, select, text, update

from core.audit_checkpoints import generate_key, load_private_key, sign
from core.errors import EpvsError
from core.settings import load_settings
from db import audit
from db.models import AuditEvent, AuditHead
from db.session import unit_of_work
from node.cli import main
from tests.support.builders.records import after
from worker.audit_checkpoints import Checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    Change = Callable[[list[AuditEvent]], None]

EVENTS = 12
CHECKPOINTS = (4, 8, 10)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Verify(Protocol):
    """Runs ``epvs-node audit verify`` with more options; returns exit code and output."""

    def __call__(self, *options: str) -> tuple[int, str]: ...


class Forge(Protocol):
    """Lets the owner change the events, and computes every hash anew."""

    def __call__(self, change: Change) -> None: ...


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Folder with the key and, after `chain`, the checkpoints: on other storage."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    generate_key(folder / "key.pem")
    return folder


@pytest.fixture
def chain(database_engine: Engine, files: Path, tmp_path: Path) -> Engine:
    """Twelve events; the housekeeper has sent checkpoints of the 4th, 8th and 10th."""
    settings = load_settings(
        data_dir=tmp_path / "data",
        audit_key=str(files / "key.pem"),
        audit_checkpoints=str(files / "checkpoints"),
    )
    checkpoints = Checkpoints(settings, database_engine)
    for number in range(1, EVENTS + 1):
        with unit_of_work(database_engine) as session:
            audit.append(session, "node-started", detail={"number": number}, now=after(number))
        if number in CHECKPOINTS:
            assert checkpoints.send([settings.audit_checkpoints]) == []
    return database_engine


@pytest.fixture
def verify(
    chain: Engine,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Verify:
    def run(*options: str) -> tuple[int, str]:
        monkeypatch.setenv("EPVS_DATABASE_URL", database_url)
        monkeypatch.setattr(sys, "argv", ["epvs-node", "audit", "verify", *options])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), " ".join("".join(capsys.readouterr()).split())

    return run


@pytest.fixture
def forge(chain: Engine, owner_engine: Engine) -> Forge:
    def rewrite(change: Change) -> None:
        with owner_engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                names = connection.scalars(
                    text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
                )
                for name in names.all():
                    connection.execute(text(f"DROP TRIGGER {name}"))
            else:
                for table in ("audit_events", "audit_head"):
                    connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER ALL"))
        with unit_of_work(owner_engine) as session:
            events = list(session.scalars(select(AuditEvent).order_by(AuditEvent.seq)))
            session.expunge_all()
            change(events)
            session.execute(text("DELETE FROM audit_events"))
            previous = audit.GENESIS
            for event in events:
                event.previous_hash, event.hash = previous, ""
                event.hash = previous = audit._hash(event)
                _insert(session, event)
            session.execute(update(AuditHead).values(seq=len(events), hash=previous))

    return rewrite


def _insert(session: Session, event: AuditEvent) -> None:
    columns = AuditEvent.__table__.columns
    row = {column.name: getattr(event, column.name) for column in columns}
    session.execute(insert(AuditEvent).values(row))


def change_event_6(events: list[AuditEvent]) -> None:
    events[5].detail = {"number": 666}


def cut_the_tail(events: list[AuditEvent]) -> None:
    del events[6:]


def cut_the_newest(events: list[AuditEvent]) -> None:
    events.pop()


def replace_everything(events: list[AuditEvent]) -> None:
    for event in events:
        event.event = "all-is-well"


def replace_and_continue(events: list[AuditEvent]) -> None:
    replace_everything(events)
    events += [
        AuditEvent(seq=number, at=after(number), event="all-is-well", detail={})
        for number in range(EVENTS + 1, EVENTS + 4)
    ]


def change_the_first(events: list[AuditEvent]) -> None:
    events[0].detail = {}


@pytest.mark.parametrize(
    ("change", "broken_at", "problem"),
    [
        (change_event_6, 8, "lies in events 5 to 8"),
        (cut_the_tail, 7, "the chain ends at event 6, but the checkpoint of"),
        (replace_everything, 4, "lies in events 1 to 4"),
        (replace_and_continue, 4, "lies in events 1 to 4"),
        (change_the_first, 4, "lies in events 1 to 4"),
    ],
)
def test_a_forged_chain_is_found_by_the_checkpoints(
    verify: Verify,
    forge: Forge,
    files: Path,
    change: Change,
    broken_at: int,
    problem: str,
) -> None:
    options = (
        *("--checkpoints", str(files / "checkpoints")),
        *("--public-key", str(files / "key.pem.pub")),
    )
    code, output = verify(*options)
    assert code == 0
    assert "12 audit events, chain intact" in output
    assert "events 11 to 12: the owner of the database could have rewritten them" in output

    forge(change)
    assert verify()[0] == 0  # the limit of the chain alone
    code, output = verify(*options)
    assert code == 1
    assert f"broken at event {broken_at}:" in output
    assert problem in output


def test_a_forged_chain_is_found_by_a_head_that_was_noted(verify: Verify, forge: Forge) -> None:
    head = verify()[1].split("newest event: ")[1].split()[0]
    code, output = verify("--head", head)
    assert code == 0
    assert "every event is covered" in output
    forge(change_event_6)
    code, output = verify("--head", head)
    assert code == 1
    assert "event 12 is not that of the given head" in output


def test_events_after_the_last_checkpoint_are_not_covered(
    verify: Verify, forge: Forge, files: Path
) -> None:
    """What remains possible, and is said: hence the schedule."""
    forge(cut_the_newest)
    code, output = verify(
        *("--checkpoints", str(files / "checkpoints")),
        *("--public-key", str(files / "key.pem.pub")),
    )
    assert code == 0
    assert "events 11 to 11: the owner of the database could have rewritten them" in output


def test_checkpoints_of_another_key_or_changed_ones_are_refused(
    verify: Verify, files: Path
) -> None:
    """Whoever can write the file, but has no key."""
    own, good = files / "checkpoints", (files / "checkpoints").read_text()
    options = ("--checkpoints", str(own), "--public-key", str(files / "key.pem.pub"))

    own.write_text(good.replace('"seq":8', '"seq":7'))
    assert "The checkpoint of event 7" in verify(*options)[1]
    assert "has an invalid signature" in verify(*options)[1]

    generate_key(files / "mine.pem")
    mine = load_private_key(files / "mine.pem")
    forged = sign(mine, seq=4, event_hash="0" * 64, at=after(0), node="EPVSNODE")
    own.write_text(f"{forged.as_json()}\n")
    assert "is signed with the unknown key" in verify(*options)[1]

    own.write_text(good.replace("}\n", "\n", 1))
    assert f"Line 1 of {own} is not a checkpoint" in verify(*options)[1]

    own.write_text("")
    assert "There is no checkpoint in" in verify(*options)[1]
    for line in ("[]", "{}", '{"seq": true}', "{" * 100_000):
        own.write_text(line)
        code, output = verify(*options)
        assert code == 1
        assert "unexpected" not in output


def test_a_chain_without_its_head_is_an_error_and_ends_nothing(
    chain: Engine, owner_engine: Engine, forge: Forge, files: Path, tmp_path: Path
) -> None:
    forge(change_event_6)
    with owner_engine.begin() as connection:
        connection.execute(text("DELETE FROM audit_head"))
    settings = load_settings(
        data_dir=tmp_path / "data",
        audit_key=str(files / "key.pem"),
        audit_checkpoints=str(files / "checkpoints"),
    )
    assert Checkpoints(settings, chain).send([settings.audit_checkpoints])
    assert "newest audit event is missing" in settings.audit_status_file.read_text()
    with pytest.raises(EpvsError, match="missing"), unit_of_work(chain) as session:
        audit.append(session, "node-started")


def test_the_housekeeper_does_not_sign_a_chain_that_was_rewritten(
    chain: Engine,
    forge: Forge,
    files: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A restart does not make it forget; the log and the doctor say what has happened."""
    settings = load_settings(
        data_dir=tmp_path / "data",
        audit_key=str(files / "key.pem"),
        audit_checkpoints=str(files / "checkpoints"),
    )
    before = (files / "checkpoints").read_text()
    forge(change_event_6)
    again = Checkpoints(settings, chain)
    for _ in range(2):
        assert again.send([settings.audit_checkpoints]) == [settings.audit_checkpoints]
    assert (files / "checkpoints").read_text() == before
    (line,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert "The audit trail no longer holds event 10 as it was on" in line
