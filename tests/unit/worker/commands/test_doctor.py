"""The worker's part of ``epvs-node doctor`` reports every missing service."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from core.settings import load_settings
from worker.app import app
from worker.commands import doctor

if TYPE_CHECKING:
    import pytest


def _examine(capsys: pytest.CaptureFixture[str], **settings: Any) -> dict[str, dict[str, Any]]:
    doctor.examine(load_settings(**settings))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {line["name"]: line for line in lines}


def test_every_absent_service_is_named_with_a_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_WAIT_S", 0.1)
    monkeypatch.setitem(app.conf.broker_transport_options, "max_retries", 1)
    with socket.socket() as closed:  # bound but not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        monkeypatch.setattr(app.conf, "broker_url", f"redis://127.0.0.1:{port}/0")
        found = _examine(
            capsys,
            triton_url=f"127.0.0.1:{port}",
            destinations=f"PACS@127.0.0.1:{port},hl7://127.0.0.1:{port},*@*:104",
        )
    archive, ris = f"destination PACS@127.0.0.1:{port}", f"destination hl7://127.0.0.1:{port}"
    assert set(found) == {"broker", "Triton", archive, ris}
    assert not any(check["ok"] for check in found.values())
    assert all(check["remedy"] for check in found.values())
