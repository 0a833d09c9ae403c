"""Settings given as files: ``EPVS_X_FILE`` in place of ``EPVS_X``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from core.errors import ConfigurationError
from core.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cret"
URL = f"postgresql://epvs:{SECRET}@db/epvs"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("EPVS_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "database_url"
    path.write_text(URL + "\n")
    monkeypatch.setenv("EPVS_DATABASE_URL_FILE", str(path))
    return path


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_the_value_is_the_content_without_the_line_break(file: Path, ending: str) -> None:
    file.write_bytes((URL + ending).encode())
    assert load_settings().database_url == URL


def test_any_setting_may_be_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"port": "4242", "trust_store_status": "false"}.items():
        (tmp_path / name).write_text(value)
        monkeypatch.setenv(f"EPVS_{name.upper()}_FILE", str(tmp_path / name))
    settings = load_settings()
    assert (settings.port, settings.trust_store_status) == (4242, False)
    assert {"port", "trust_store_status"} <= settings.model_fields_set


def test_a_file_wins_over_the_configuration_file_and_an_argument_over_both(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "epvs.toml").write_text('database_url = "sqlite:///other.sqlite"\n')
    monkeypatch.setenv("EPVS_CONFIG", str(tmp_path / "epvs.toml"))
    assert load_settings().database_url == URL
    assert load_settings(database_url="sqlite:///mine.sqlite").database_url.endswith("mine.sqlite")


def test_value_and_file_at_once_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPVS_DATABASE_URL", "")
    assert load_settings().database_url == URL
    monkeypatch.setenv("EPVS_DATABASE_URL", URL)
    with pytest.raises(ConfigurationError, match="EPVS_DATABASE_URL_FILE are both set") as raised:
        load_settings()
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (SECRET.encode() + b"\xff", "is not text"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_without_its_content(
    file: Path, content: bytes | None, complaint: str
) -> None:
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=complaint) as raised:
        load_settings()
    message = str(raised.value)
    assert f"EPVS_DATABASE_URL_FILE names {file}" in message
    assert SECRET not in message


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("DATABASE_URL", "must begin with sqlite:/// or postgresql://"),
        ("PORT", "valid integer"),
        ("CALLERS", "give it as EPVS_CALLERS to see the reason"),
        ("LOG_LEVEL", "Input should be 'DEBUG'"),
    ],
)
def test_an_invalid_value_from_a_file_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, complaint: str
) -> None:
    (tmp_path / "value").write_text(f"mysql://epvs:{SECRET}@db/epvs")
    monkeypatch.setenv(f"EPVS_{name}_FILE", str(tmp_path / "value"))
    with pytest.raises(ConfigurationError, match=f"EPVS_{name}_FILE") as raised:
        load_settings()
    assert complaint in str(raised.value)
    assert SECRET not in str(raised.value)


def test_only_known_settings_have_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPVS_PASSWORD_FILE", "/run/secrets/password")
    with pytest.raises(ConfigurationError, match="EPVS_PASSWORD_FILE: no such setting"):
        load_settings()
