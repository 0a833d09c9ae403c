"""Foreign text acts on no terminal, breaks no command and forges no line of a log.

Each attack puts a sequence that a terminal obeys, markup of the table library or a line feed where
a sender or a file decides the text.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from io import BytesIO
from typing import TYPE_CHECKING

import pydicom
import pytest

from core.logs import LineFormatter
from db.models import SeriesVerdictRow
from db.session import unit_of_work
from node.cli import main
from tests.support.builders.records import STUDY, queue_study, reject_study
from tests.support.builders.sources import classic, inputs, not_graded, refused, uid
from tests.support.clients.upper_layer import associate_rq, peer
from tests.support.paths import ROOT
from tests.support.servers.receiver import run_receiver

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

RED = "\x1b[31m"
ESCAPES = ("\x1b", "\x9b", "\x07", "\r", "\u202e")


def _is_clean(text: str) -> bool:
    return not any(escape in text for escape in ESCAPES)


def _python(
    *arguments: str, cwd: Path = ROOT, **settings: str
) -> subprocess.CompletedProcess[bytes]:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("EPVS_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(ROOT), **settings},
        capture_output=True,
        check=False,
    )


def _command_line(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["epvs-node", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_an_ae_title_cannot_act_on_the_terminal_that_shows_the_log(tmp_path: Path) -> None:
    with (
        run_receiver(tmp_path, callers="PACS@192.0.2.1") as receiver,
        peer(receiver.port) as caller,
    ):
        caller.send(associate_rq(calling_ae="\x1b]0;x\x07\x1b[2J"))
        caller.receive()
        receiver.wait_for_audit("connection-refused")  # as malformed
        with peer(receiver.port) as caller:
            caller.send(associate_rq(calling_ae="[/red] PACS"))
            caller.receive()
        receiver.wait_for_audit("association-refused")
        receiver.stop()
    log = receiver.log.read_text()
    assert _is_clean(log)
    assert "calling_ae=[/red] PACS" in log


@pytest.mark.parametrize("separator", ["\n", "\r", "\x85", "\u2028", "\x0b", "\x0c", RED, "\u202e"])
def test_a_value_cannot_forge_a_line_of_the_log(separator: str) -> None:
    forged = f"A{separator}2026-01-31T09:30:00.123Z INFO receiver: stored"
    record = logging.LogRecord("receiver", logging.INFO, "f", 1, "refused ae=%s", (forged,), None)
    line = LineFormatter("receiver").format(record)
    assert len(line.splitlines()) == 1
    assert _is_clean(line)


def test_the_text_of_an_unexpected_exception_stays_out_of_the_log(tmp_path: Path) -> None:
    script = tmp_path / "crash.py"
    script.write_text(
        "import threading\n"
        "from core.logs import configure_logging\n"
        "from core.settings import load_settings\n"
        "configure_logging(load_settings(), 'housekeeper')\n"
        "def fail():\n"
        f"    raise ValueError({RED!r} + 'CANARY^ANNA')\n"
        "thread = threading.Thread(target=fail)\n"
        "thread.start()\n"
        "thread.join()\n"
        "fail()\n"
    )
    ended = _python(str(script))
    assert ended.returncode == 1
    log = ended.stderr.decode()
    assert log.count("ValueError") == 2
    assert "CANARY" not in log
    assert _is_clean(log)


def test_text_of_a_study_breaks_no_table_and_acts_on_no_terminal(
    database_engine: Engine,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with unit_of_work(database_engine) as session:
        revision_id = queue_study(session)
        reject_study(session, revision_id)
        session.add(
            SeriesVerdictRow(
                revision_id=revision_id,
                series_uid=f"{STUDY}.7",
                reason="undecodable-pixels",
                detail=f"[/red] {RED}[bold]\u202e\r",
                n_instances=1,
            )
        )
    monkeypatch.setenv("EPVS_DATABASE_URL", database_url)
    assert _command_line(monkeypatch, "show", STUDY) == 0
    shown = capsys.readouterr().out
    assert _is_clean(shown)
    assert r"[/red] \x1b[31m[bold]\u202e\r" in shown


def test_a_study_uid_of_the_command_line_cannot_act_on_the_terminal(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EPVS_DATABASE_URL", database_url)
    for arguments in (["show", f"1.2{RED}"], ["show", "1.2", f"--{RED}"], [f"show{RED}"]):
        assert _command_line(monkeypatch, *arguments) == 2
        output = capsys.readouterr()
        assert _is_clean(output.err + output.out)
        assert r"\x1b[31m" in output.err
    assert _command_line(monkeypatch, "show", "[/red]1.2") == 1
    assert "Study [/red]1.2 is not known" in capsys.readouterr().err


def test_a_patients_name_cannot_act_on_the_terminal_that_shows_the_report(tmp_path: Path) -> None:
    study = inputs(classic(tmp_path)).study
    report = not_graded(study, refused(uid("classic")))
    sr = pydicom.dcmread(BytesIO(report.objects[-1].content))
    sr.SpecificCharacterSet = "ISO_IR 192"
    sr.PatientName = f"Müller^{RED}\x07\u202e"
    sr.PatientID = "\x1b[2J\x9b1m"
    file = tmp_path / "report.dcm"
    sr.save_as(file)
    shown = _python("-m", "worker.commands.read_report", str(file)).stdout.decode()
    assert "Müller^" in shown
    assert _is_clean(shown)
    assert "\n" in shown


@pytest.mark.parametrize(
    "module",
    [
        ["receiver"],
        ["worker.housekeeper"],
        ["celery", "-A", "worker.app", "worker"],
        ["worker.commands.send", "PACS@192.0.2.1:104"],
        ["worker.commands.doctor"],
        ["node", "studies"],
    ],
    ids=lambda module: module[0],
)
def test_no_entry_point_repeats_control_characters_of_a_setting(
    module: list[str], tmp_path: Path
) -> None:
    ended = _python("-m", *module, cwd=tmp_path, EPVS_CONFIG=f"settings{RED}.toml")
    assert ended.returncode != 0
    message = ended.stderr.decode()
    assert _is_clean(message)
    assert r"settings\x1b[31m.toml" in message
