"""Settings: a wrong value stops the start and says what would be right."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from core.destinations import DicomDestination, Hl7Destination, parse_destination
from core.errors import ConfigurationError
from core.results import SRClass
from core.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("EPVS_"):
            monkeypatch.delenv(name)


def test_destination_options() -> None:
    destination = parse_destination("ARCHIVE 1@pacs.example:104?sr=comprehensive3d&sc=0&pm=1")
    assert isinstance(destination, DicomDestination)
    assert destination.name == "ARCHIVE 1@pacs.example:104"
    assert destination.sr_class is SRClass.COMPREHENSIVE_3D
    assert not destination.secondary_capture
    assert destination.parametric_map
    assert parse_destination("PACS@[::1]:104").host == "::1"
    assert parse_destination("hl7://ris.example:2575?application=RIS&notgraded=1") == (
        Hl7Destination("ris.example", 2575, application="RIS", not_graded=True)
    )
    assert parse_destination("hl7://192.0.2.1:2575?tls=1&tlsname=ris.example") == (
        Hl7Destination("192.0.2.1", 2575, tls=True, tls_name="ris.example")
    )


def test_whoever_sent_the_study_is_a_destination() -> None:
    settings = load_settings(destinations="PACS@192.0.2.1:104,*@*:11112?sc=0")
    sender = settings.destination_named("CT 1@192.0.2.7:11112")
    assert isinstance(sender, DicomDestination)
    assert (sender.ae_title, sender.host, sender.secondary_capture) == ("CT 1", "192.0.2.7", False)
    assert settings.destination_named("PACS@192.0.2.1:104") == settings.destination_list[0]
    assert settings.destination_named("CT 1@192.0.2.7:104") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("PACS", "AE@host:port"),
        ("PACS@host", "AE@host:port"),
        ("PACS@host:99999", "port from 1 to 65535"),
        ("SEVENTEEN-LETTERS@host:104", "at most 16 characters"),
        ("PACS@host:104?sr=basic", "sr=comprehensive"),
        ("PACS@host:104?pm=yes", "pm=0 or pm=1"),
        ("PACS@host:104?colour=1", "unknown option 'colour'"),
        ("PACS@host:104?reporter=NODE2@node2.example", "reporter=NODE2@node2.example"),
        ("PACS@host:104?reporter=A@192.0.2.1&reporter=B", "reporter=B"),
        ("*@host:104", "*@*:port"),
        ("PACS@host:104?tlsname=pacs", "without tls=1"),
        ("PACS@host:104?tls=1&tlsname=a/b", "not a valid certificate name"),
        ("hl7://host", "hl7://host:port"),
        ("hl7://host:2575?sr=comprehensive", "unknown option 'sr'"),
        ("hl7://host:2575?facility=A|B", "letters, digits"),
        ("hl7://host:2575?tlsname=ris", "without tls=1"),
    ],
)
def test_wrong_destination_names_setting_and_remedy(
    monkeypatch: pytest.MonkeyPatch, text: str, complaint: str
) -> None:
    monkeypatch.setenv("EPVS_DESTINATIONS", text)
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    assert "EPVS_DESTINATIONS" in str(raised.value)
    assert complaint in str(raised.value)


def test_a_wrong_priority_rule_names_setting_and_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPVS_PRIORITY_RULES", "1:requested=STAT, 2:patient=X")
    with pytest.raises(ConfigurationError, match=r"EPVS_PRIORITY_RULES.*2:patient=X.*requested"):
        load_settings()
    monkeypatch.setenv("EPVS_PRIORITY_RULES", "1:requested=STAT, 2:station=ER*")
    assert [rule.priority for rule in load_settings().priorities] == [1, 2]


@pytest.mark.parametrize(
    "setting",
    [
        {"tls_port": 2762},
        {"destinations": "PACS@host:104?tls=1"},
        {"destinations": "hl7://host:2575?tls=1"},
        {"tls_revocation": "/etc/epvs/crl.pem"},
        {"broker_url": "rediss://:secret@redis.example:6380/0"},
        {"callers": "PACS@192.0.2.1?certificate=pacs.example"},
        {"destinations": "PACS@pacs:104?reporter=A@192.0.2.1?certificate=a.example"},
    ],
)
def test_what_needs_tls_names_the_files_and_shows_no_password(setting: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="EPVS_TLS_CERTIFICATE") as raised:
        load_settings(database_url="postgresql://epvs:secret@db/epvs", **setting)
    assert "secret" not in str(raised.value)


def test_at_least_one_port_is_open() -> None:
    with pytest.raises(ConfigurationError, match="EPVS_TLS_PORT are the same"):
        load_settings(port=0)


def test_environment_wins_over_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "epvs.toml"
    file.write_text('ae_title = "FROMFILE"\nport = 4242\n')
    monkeypatch.setenv("EPVS_CONFIG", str(file))
    monkeypatch.setenv("EPVS_PORT", "4243")
    settings = load_settings()
    assert (settings.ae_title, settings.port) == ("FROMFILE", 4243)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("port = = 1", "is not valid TOML"), ("portt = 4242", "portt: no such setting")],
)
def test_wrong_file_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "epvs.toml"
    file.write_text(text)
    monkeypatch.setenv("EPVS_CONFIG", str(file))
    with pytest.raises(ConfigurationError, match=complaint):
        load_settings()


def test_unknown_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPVS_QUIET_PERIOD", "5")
    with pytest.raises(ConfigurationError, match="EPVS_QUIET_PERIOD: no such setting"):
        load_settings()


def test_a_wrong_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPVS_DATABASE_URL", "postgres://node:s3cret@db/epvs")
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    assert "EPVS_DATABASE_URL" in str(raised.value)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("password", ["s3/cret", "s3#cret", "s3?cret", "s3@cret", "s3[cret"])
@pytest.mark.parametrize("name", ["EPVS_DATABASE_URL", "EPVS_BROKER_URL"])
def test_a_password_that_no_library_would_read_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str, password: str
) -> None:
    scheme = "postgresql" if "DATABASE" in name else "redis"
    monkeypatch.setenv(name, f"{scheme}://epvs:{password}@host:5432/0")
    with pytest.raises(ConfigurationError, match=rf"{name} .* percent-encoded") as raised:
        load_settings()
    assert "s3" not in str(raised.value)
    monkeypatch.setenv(name, f"{scheme}://epvs:{quote(password, safe='')}@host:5432/0")
    load_settings()


def test_database_defaults_to_the_data_folder(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    assert settings.database_url == f"sqlite:///{tmp_path / 'epvs.sqlite'}"
