"""Signs checkpoints of the audit trail and sends them out of reach of the database's owner.

Runs in a thread of the housekeeper of its own: a file system or syslog server that does not
respond delays nothing else. What was sent where is noted in `Settings.audit_status_file`, for the
next start and for ``epvs-node doctor``.
"""

from __future__ import annotations

import json
import logging
import os
import time
import traceback
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.audit_checkpoints import load_private_key, sign
from core.errors import EpvsError
from core.syslog import SyslogServer
from db import audit
from db.session import unit_of_work

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection

    from sqlalchemy import Engine

    from core.audit_checkpoints import Checkpoint
    from core.settings import Settings

log = logging.getLogger(__name__)

RETRY_S: Final = 60.0
"""How long after a failure a destination is tried again."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Last checkpoint that a destination has, and what keeps it from getting the next one.

    Parameters
    ----------
    seq : int
        Number of the event; 0: none was sent yet.
    hash : str
        Its hash.
    at : str
        When it was signed: ISO 8601, UTC.
    problem : str
        Empty if the last attempt succeeded.
    """

    seq: int = 0
    hash: str = ""
    at: str = ""
    problem: str = ""

    def is_older_than(self, seconds: float) -> bool:
        """Whether the checkpoint was signed longer ago, or none was."""
        if not self.at:
            return True
        return (datetime.now(UTC) - datetime.fromisoformat(self.at)).total_seconds() > seconds


def destinations(settings: Settings) -> list[str]:
    """Return the destinations of checkpoints: a path, the URL of a syslog server, or both."""
    return [each for each in (settings.audit_checkpoints, settings.audit_syslog) if each]


def read_status(settings: Settings) -> dict[str, Sent]:
    """Return what each destination has; nothing if that was not noted yet, or not readably."""
    try:
        noted = json.loads(settings.audit_status_file.read_text(encoding="utf-8"))
        return {destination: Sent(**values) for destination, values in noted.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


class Checkpoints:
    """Sends a signed checkpoint to every destination, once every `audit_interval_s`.

    Parameters
    ----------
    settings : Settings
    engine : Engine
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._sent = read_status(settings)

    def run(self, stop: threading.Event) -> None:
        """Send checkpoints until `stop` is set, and then the last ones."""
        everywhere = destinations(self._settings)
        due, failed = time.monotonic(), everywhere
        stopped = False
        while not stopped:
            wait_s = due - time.monotonic()
            stopped = stop.wait(max(0.0, min(wait_s, RETRY_S) if failed else wait_s))
            if stopped or time.monotonic() >= due:
                due, failed = time.monotonic() + self._settings.audit_interval_s, everywhere
            failed = self.send(failed)

    def send(self, targets: Collection[str]) -> list[str]:
        """Send the newest event's checkpoint to each target that does not have it.

        Returns
        -------
        list of str
            Targets that failed; the log has the reasons.
        """
        before = dict(self._sent)
        for target in targets:
            sent = self._sent.get(target, Sent())
            try:
                checkpoint = self._sign_next(sent)
                if checkpoint is not None:
                    _deliver(checkpoint, target)
                    sent = Sent(checkpoint.seq, checkpoint.hash, checkpoint.at)
                    log.info("sent audit checkpoint event=%d to %s", sent.seq, target)
                problem = ""
            except EpvsError as error:
                problem = str(error)
            except OSError as error:
                problem = f"{target} cannot be written to: {error.strerror or error}."
            except Exception as error:  # noqa: BLE001 - the thread must not end for a defect
                frame = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(frame.filename).name}:{frame.lineno}"
                problem = f"unexpected {type(error).__name__} in {where}. Please report it."
            if problem and problem != sent.problem:
                log.error("audit checkpoint not sent to %s: %s", target, problem)
            self._sent[target] = replace(sent, problem=problem)
        if self._sent != before:
            self._note()
        return [target for target in targets if self._sent[target].problem]

    def _sign_next(self, sent: Sent) -> Checkpoint | None:
        """Sign the newest event; None if `sent` is that event.

        Raises
        ------
        EpvsError
            The chain does not hold the event that was signed before: it was rewritten or cut.
        """
        with unit_of_work(self._engine, read_only=True) as session:
            seq, event_hash = audit.newest(session)
            if sent.seq and audit.hash_of(session, sent.seq) != sent.hash:
                raise EpvsError(
                    f"The audit trail no longer holds event {sent.seq} as it was on {sent.at}.",
                    "Run epvs-node audit verify; see docs/troubleshooting.md.",
                )
        if seq == sent.seq:
            return None
        key = load_private_key(Path(self._settings.audit_key))
        now, node = datetime.now(UTC), self._settings.ae_title
        return sign(key, seq=seq, event_hash=event_hash, at=now, node=node)

    def _note(self) -> None:
        path = self._settings.audit_status_file
        text = json.dumps({target: asdict(sent) for target, sent in self._sent.items()})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            log.warning("%s cannot be written: %s", path, error.strerror)


def _deliver(checkpoint: Checkpoint, target: str) -> None:
    if "://" in target:
        SyslogServer.parse(target).send(f"audit-checkpoint {checkpoint.as_json()}")
        return
    # Appended in one write; a line that a crash cut off must not spoil the next one.
    with Path(target).open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        begin = b"" if file.read(1) in (b"", b"\n") else b"\n"
        file.write(begin + checkpoint.as_json().encode("ascii") + b"\n")
        file.flush()
        os.fsync(file.fileno())
