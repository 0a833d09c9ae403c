"""A listener between the node and a RIS learns nothing, and no link falls back to clear text.

Certificates of strangers, of other hosts and of nobody are refused on both sides.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from core.errors import ConfigurationError, Unavailable
from core.settings import load_settings
from tests.support.builders.certificates import Authority, tls_settings
from tests.support.builders.made_study import stored_object
from tests.support.builders.sources import classic, inputs
from tests.support.servers.mllp import ScriptedReceiver, scripted_receiver
from tests.support.servers.proxies import recording_proxy
from worker.commands import doctor
from worker.delivery.hl7.mllp import exchange, probe
from worker.delivery.hl7.sending import send_result
from worker.delivery.outcomes import Delivered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from core.settings import Settings
    from core.tls import Identity
    from db.delivery.claims import StoredObject

TIMEOUT_S = 3.0


@pytest.fixture
def ris(server_identity: Identity) -> Iterator[ScriptedReceiver]:
    with scripted_receiver(server_identity) as scripted:
        yield scripted


@pytest.fixture(scope="module")
def sr(tmp_path_factory: pytest.TempPathFactory) -> StoredObject:
    folder = tmp_path_factory.mktemp("report")
    return stored_object(inputs(classic(folder)).build().objects[-1], folder)


def settings_of(identity: Identity | None) -> Settings:
    files = {} if identity is None else tls_settings(identity)
    return load_settings(network_timeout_s=TIMEOUT_S, **files)


def test_an_hl7_message_cannot_be_read_on_the_way(
    ris: ScriptedReceiver, node: Identity, sr: StoredObject
) -> None:
    def fields_recorded(receiver: ScriptedReceiver) -> list[bytes]:
        """Fields of the message that a listener could read."""
        with recording_proxy(receiver.destination.port) as proxy:
            through = replace(receiver.destination, port=proxy.port)
            assert isinstance(send_result(through, [sr], settings_of(node)), Delivered)
        [message] = receiver.messages
        assert len(proxy.recorded) > len(message)
        fields = (field for field in message.replace(b"\r", b"|").split(b"|") if len(field) > 7)
        return [field for field in fields if field in proxy.recorded]

    assert fields_recorded(ris) == []
    with scripted_receiver() as unencrypted:  # otherwise the listener reads everything
        assert sr.sop_instance_uid.encode() in fields_recorded(unencrypted)


def test_hl7_is_sent_to_nobody_else(
    ris: ScriptedReceiver, node: Identity, authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match="Hostname mismatch"):
        exchange(replace(ris.destination, tls_name="ris.example"), node, b"X", timeout_s=TIMEOUT_S)
    by_address = replace(ris.destination, host="127.0.0.1")
    with pytest.raises(Unavailable, match="IP address mismatch"):
        exchange(by_address, node, b"X", timeout_s=TIMEOUT_S)
    stranger = replace(
        Authority(tmp_path / "stranger").issue("localhost"), authorities=authority.certificate
    )
    with (
        scripted_receiver(stranger) as impostor,
        pytest.raises(Unavailable, match="unable to get local issuer"),
    ):
        exchange(impostor.destination, node, b"X", timeout_s=TIMEOUT_S)
    assert not ris.messages + impostor.messages


def test_a_ris_takes_nothing_from_a_client_without_its_certificate(
    ris: ScriptedReceiver, authority: Authority, tmp_path: Path
) -> None:
    stranger = replace(Authority(tmp_path).issue("node.example"), authorities=authority.certificate)
    with pytest.raises(Unavailable, match="no acknowledgment"):
        exchange(ris.destination, stranger, b"X", timeout_s=TIMEOUT_S)
    with pytest.raises(Unavailable, match="no TLS connection"):
        probe(ris.destination, stranger, timeout_s=TIMEOUT_S)
    assert not ris.messages


def test_hl7_never_falls_back_to_clear_text(node: Identity, sr: StoredObject) -> None:
    with scripted_receiver() as unencrypted, recording_proxy(unencrypted.destination.port) as proxy:
        required = replace(unencrypted.destination, port=proxy.port, tls=True)
        with pytest.raises(ConfigurationError, match="no certificate"):
            send_result(required, [sr], settings_of(None))
        assert proxy.recorded == b""
        with pytest.raises(Unavailable, match="no TLS connection"):
            send_result(required, [sr], replace_timeout(settings_of(node)))
        assert sr.sop_instance_uid.encode() not in proxy.recorded
    assert not unencrypted.messages


def replace_timeout(settings: Settings) -> Settings:
    """Settings for a peer that waits for the end of a message that never ends."""
    return settings.model_copy(update={"network_timeout_s": 0.5})


def test_the_doctor_says_whether_a_ris_is_reached_over_tls(
    ris: ScriptedReceiver, node: Identity, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor._check_receiver(ris.destination, settings_of(node))
    with scripted_receiver() as unencrypted:
        doctor._check_receiver(unencrypted.destination, settings_of(node))
    wrong = replace(ris.destination, tls_name="ris.example")
    doctor._check_receiver(wrong, settings_of(node))
    encrypted, clear, failing = capsys.readouterr().out.splitlines()
    assert '"ok": true' in encrypted
    assert "over TLS" in encrypted
    assert '"ok": true' in clear
    assert "on this machine" in clear
    assert '"ok": false' in failing
    assert "must state the name ris.example" in failing
