"""Settings of the node: one immutable object, validated once at start.

Values come from the environment (``EPVS_…``), from files that it names (``EPVS_…_FILE``) and from
the TOML file that ``EPVS_CONFIG`` names; the environment takes precedence. An invalid value
prevents the start; the message names the setting, its value and what is valid.
"""

from __future__ import annotations

import os
import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from core.callers import AE_TITLE, CallerRule, parse_caller
from core.destinations import Destination, DicomDestination, parse_destination
from core.errors import ConfigurationError
from core.file_systems import find_network_file_system
from core.links import require_readable_url
from core.priorities import PriorityRule, parse_priority_rule
from core.setting_files import file_variable, read_setting_files, variable
from core.syslog import SyslogServer
from core.tls import Identity

SHIPPED_MODELS_DIR: Final = Path(__file__).resolve().parents[1] / "triton_models"
"""The models that come with the package, in a checkout and in an installation alike."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


class Settings(BaseSettings):
    """All settings of the node; ``docs/settings.md`` explains each of them."""

    model_config = SettingsConfigDict(env_prefix="EPVS_", frozen=True, extra="forbid")

    ae_title: str = "EPVSNODE"
    host: str = "0.0.0.0"  # noqa: S104 - a DICOM node must be reachable from the PACS
    port: int = Field(default=11112, ge=0, le=65535)
    tls_port: int = Field(default=0, ge=0, le=65535)
    tls_certificate: str = ""
    tls_key: str = ""
    tls_authorities: str = ""
    tls_revocation: str = ""
    callers: str = ""
    destinations: str = ""
    other_classes: Literal["refuse", "accept"] = "refuse"
    quiet_period_s: float = Field(default=30.0, gt=0)
    max_open_s: float = Field(default=5400.0, gt=0)
    data_dir: Path = Path("data")
    database_url: str = ""
    database_owner_url: str = ""
    broker_url: str = "redis://127.0.0.1:6379/0"
    triton_url: str = "127.0.0.1:8001"
    triton_timeout_s: float = Field(default=60.0, gt=0)
    models_dir: Path = SHIPPED_MODELS_DIR
    trusted_models: str = ""
    enhancement: Literal["stationary", "block-group", "none"] = "stationary"
    """Without effect: `model.json` states it. Kept so that existing configurations stay valid."""
    max_attempts: int = Field(default=3, ge=1)
    lease_s: float = Field(default=30.0, gt=0)
    sweep_interval_s: float = Field(default=1.0, gt=0)
    max_associations: int = Field(default=32, ge=1)
    max_associations_per_caller: int = Field(default=0, ge=0)
    max_pending_connections: int = Field(default=16, ge=1)
    max_pending_total: int = Field(default=256, ge=1)
    receiver_processes: int = Field(default=1, ge=1, le=64)
    network_timeout_s: float = Field(default=60.0, gt=0)
    idle_timeout_s: float = Field(default=300.0, gt=0)
    max_instance_mb: int = Field(default=2048, ge=1)
    spool_reserve_mb: int = Field(default=1024, ge=0)
    keep_images_days: float = Field(default=90.0, ge=0)
    keep_reports_days: float = Field(default=365.0, ge=0)
    keep_quarantine_days: float = Field(default=90.0, ge=0)
    keep_details_days: float = Field(default=365.0, ge=0)
    prune_below_mb: int = Field(default=0, ge=0)
    prune_interval_s: float = Field(default=600.0, gt=0)
    keep_logs_mb: int = Field(default=50, ge=0)
    trust_store_status: bool = True
    commitment_timeout_s: float = Field(default=600.0, gt=0)
    deliveries_per_destination: int = Field(default=2, ge=1)
    priority_rules: str = ""
    station_name: str = Field(default="epvs-node", max_length=16)
    audit_key: str = ""
    audit_checkpoints: str = ""
    audit_syslog: str = ""
    audit_interval_s: float = Field(default=3600.0, gt=0)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic defines the signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence: explicit arguments, files, the environment, the TOML file."""
        files = InitSettingsSource(settings_cls, read_setting_files(settings_cls.model_fields))
        # Files before the environment: an empty variable beside one is not a value.
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, files, env_settings)
        config = os.environ.get("EPVS_CONFIG")
        if config:
            sources += (TomlConfigSettingsSource(settings_cls, toml_file=config),)
        return sources

    @field_validator("ae_title")
    @classmethod
    def _check_ae_title(cls, value: str) -> str:
        if not AE_TITLE.fullmatch(value) or not value.strip():
            raise ValueError("must be 1 to 16 printable ASCII characters without backslash")
        return value.strip()

    @field_validator("callers")
    @classmethod
    def _check_callers(cls, value: str) -> str:
        for part in _split(value):
            parse_caller(part)
        return value

    @field_validator("destinations")
    @classmethod
    def _check_destinations(cls, value: str) -> str:
        names = [parse_destination(part).name for part in _split(value)]
        if len(set(names)) < len(names):
            raise ValueError("contains the same destination twice")
        return value

    @field_validator("priority_rules")
    @classmethod
    def _check_priority_rules(cls, value: str) -> str:
        for part in _split(value):
            parse_priority_rule(part)
        return value

    @field_validator("trusted_models")
    @classmethod
    def _check_trusted_models(cls, value: str) -> str:
        for part in _split(value):
            if not _SHA256.fullmatch(part):
                raise ValueError(f"contains {part!r}, which is not a SHA-256 in lower case")
        return value

    @field_validator("database_url", "database_owner_url")
    @classmethod
    def _check_database_url(cls, value: str) -> str:
        if value and not value.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
            raise ValueError("must begin with sqlite:/// or postgresql://")
        require_readable_url(value)
        return value

    @field_validator("audit_syslog")
    @classmethod
    def _check_audit_syslog(cls, value: str) -> str:
        return str(SyslogServer.parse(value)) if value else ""

    @field_validator("broker_url")
    @classmethod
    def _check_broker_url(cls, value: str) -> str:
        require_readable_url(value)
        if any(name.startswith("ssl") for name, _ in parse_qsl(urlsplit(value).query)):
            raise ValueError(
                "has ssl parameters; EPVS_TLS_… are the settings of a rediss:// broker"
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _default_database(cls, values: dict[str, Any]) -> dict[str, Any]:
        if not values.get("database_url"):
            data_dir = Path(values.get("data_dir") or "data").absolute()
            values["database_url"] = f"sqlite:///{data_dir / 'epvs.sqlite'}"
        return values

    @model_validator(mode="after")
    def _check_sqlite(self) -> Self:
        path = Path(self.database_url.removeprefix("sqlite:///"))
        if self.is_sqlite and (kind := find_network_file_system(path)):
            raise ValueError(
                f"a SQLite file cannot be on a network file system, and {path} is on {kind}: use "
                "PostgreSQL (EPVS_DATABASE_URL), as several hosts need it anyway"
            )
        return self

    @model_validator(mode="after")
    def _check_owner(self) -> Self:
        if self.database_owner_url and self.is_sqlite:
            raise ValueError("EPVS_DATABASE_OWNER_URL is for PostgreSQL: SQLite has no roles")
        return self

    @model_validator(mode="after")
    def _check_audit(self) -> Self:
        if bool(self.audit_key) != bool(self.audit_checkpoints or self.audit_syslog):
            raise ValueError(
                "signed audit checkpoints need EPVS_AUDIT_KEY, and EPVS_AUDIT_CHECKPOINTS or "
                "EPVS_AUDIT_SYSLOG"
            )
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if self.tls_port == self.port:
            raise ValueError(
                "EPVS_PORT and EPVS_TLS_PORT are the same; 0 turns off one of them, not both"
            )
        if self.tls_identity is not None:
            return self
        # Not the cached properties: `model_copy` would carry their values into the copy.
        destinations = [parse_destination(part) for part in _split(self.destinations)]
        rules = [parse_caller(part) for part in _split(self.callers)]
        for each in destinations:
            rules += each.reporters if isinstance(each, DicomDestination) else ()
        if (
            self.tls_port
            or self.tls_revocation
            or self.broker_url.startswith("rediss://")
            or any(each.tls for each in destinations)
            or any(rule.certificate for rule in rules)
        ):
            raise ValueError(
                "TLS needs EPVS_TLS_CERTIFICATE, EPVS_TLS_KEY and EPVS_TLS_AUTHORITIES"
            )
        return self

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a SQLite file."""
        return self.database_url.startswith("sqlite")

    @property
    def tls_identity(self) -> Identity | None:
        """Certificate, key, authorities and any revocation lists; None unless the first are set."""
        if not (self.tls_certificate and self.tls_key and self.tls_authorities):
            return None
        return Identity(
            Path(self.tls_certificate),
            Path(self.tls_key),
            Path(self.tls_authorities),
            Path(self.tls_revocation) if self.tls_revocation else None,
        )

    @cached_property
    def caller_rules(self) -> tuple[CallerRule, ...]:
        """The allow-list; if it is empty, every association is rejected."""
        return tuple(parse_caller(part) for part in _split(self.callers))

    @property
    def caller_quota(self) -> int:
        """Associations that one caller may have open at once."""
        return self.max_associations_per_caller or max(1, self.max_associations // 2)

    @property
    def reserved_associations(self) -> int:
        """Last associations that only a caller without any may open; none if the limit is low."""
        return self.max_associations // 8

    @cached_property
    def destination_list(self) -> tuple[Destination, ...]:
        """Destinations of results."""
        return tuple(parse_destination(part) for part in _split(self.destinations))

    @cached_property
    def priorities(self) -> tuple[PriorityRule, ...]:
        """Rules that give studies a priority, in their order."""
        return tuple(parse_priority_rule(part) for part in _split(self.priority_rules))

    def destination_named(self, name: str) -> Destination | None:
        """Return the destination with this name; None if it is no longer configured."""
        for known in self.destination_list:
            if known.name == name:
                return known
        ae_title, _, address = name.partition("@")
        host, _, port = address.rpartition(":")
        for known in self.destination_list:
            if isinstance(known, DicomDestination) and known.is_sender and str(known.port) == port:
                return known.resolved(ae_title, host)
        return None

    @property
    def trusted_digests(self) -> frozenset[str]:
        """SHA-256 of the ``model.json`` of each model that the site has added."""
        return frozenset(_split(self.trusted_models))

    @property
    def early_removal_mb(self) -> int:
        """Free space below which retention removes images before their time."""
        return self.prune_below_mb or 2 * self.spool_reserve_mb

    @property
    def logs_dir(self) -> Path:
        """Folder of the embedded stack's log files."""
        return self.data_dir / "logs"

    @property
    def spool_dir(self) -> Path:
        """Folder of received instances, as Part 10 files named by hash."""
        return self.data_dir / "spool"

    @property
    def reports_dir(self) -> Path:
        """Folder of the objects that were or will be sent, byte for byte."""
        return self.data_dir / "reports"

    @property
    def audit_status_file(self) -> Path:
        """File in which the housekeeper notes where it has sent which audit checkpoint."""
        return self.data_dir / "audit-checkpoints.json"

    @property
    def worker_ready_file(self) -> Path:
        """File that a worker creates when it is ready to take studies."""
        return self.data_dir / "worker.ready"

    @property
    def housekeeper_ready_file(self) -> Path:
        """File that the housekeeper creates when it has swept for the first time."""
        return self.data_dir / "housekeeper.ready"

    @property
    def delivery_ready_file(self) -> Path:
        """File that a worker creates when it is ready to deliver and takes no studies."""
        return self.data_dir / "delivery.ready"


def load_settings(**overrides: Any) -> Settings:
    """Read and validate the settings.

    Raises
    ------
    ConfigurationError
        Names each invalid setting, its value and what is valid.
    """
    config = os.environ.get("EPVS_CONFIG")
    if config and not Path(config).is_file():
        raise ConfigurationError(
            f"EPVS_CONFIG names {config}, which is not a file.", "Correct the path or unset it."
        )
    _refuse_unknown_variables()
    try:
        return Settings(**overrides)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{config} is not valid TOML: {error}.", "Correct it.") from None
    except ValidationError as error:
        raise ConfigurationError(
            "; ".join(_explain(problem) for problem in error.errors())
        ) from None


def _explain(problem: Any) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:  # the error concerns several settings; the message names them
        return message
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{name}: no such setting; docs/settings.md lists them"
    is_url = name.endswith("_url")  # may carry a password
    if os.environ.get(file_variable(name)):  # what is kept in a file may be secret
        # Messages of the node's own checks quote the value, except those on URLs.
        hidden = problem["type"] == "value_error" and not is_url
        reason = f"give it as {variable(name)} to see the reason" if hidden else message
        return f"the file that {file_variable(name)} names has no valid {variable(name)}: {reason}"
    value = "as given" if is_url else repr(problem.get("input"))
    return f"{variable(name)} is {value}: {message}"


def _refuse_unknown_variables() -> None:
    known = {"EPVS_CONFIG"}
    for name in Settings.model_fields:
        known |= {variable(name), file_variable(name)}
    unknown = sorted(name for name in os.environ if name.startswith("EPVS_") and name not in known)
    if unknown:
        raise ConfigurationError(
            f"{', '.join(unknown)}: no such setting.",
            "The settings are listed in docs/settings.md.",
        )
