"""Settings of the node: one frozen object, validated once at start.

Values come from the environment (``EPVS_…``) and from the TOML file that ``EPVS_CONFIG`` names;
the environment wins. A wrong value stops the start with a message that names the setting, what it
is and what would be right.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from core.errors import ConfigurationError

_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")  # PS3.8 7.1.1.4: printable ASCII without backslash


@dataclass(frozen=True, slots=True)
class Destination:
    """Where results are sent: one AE and what it is to receive."""

    ae_title: str
    host: str
    port: int
    sr: Literal["comprehensive", "comprehensive3d"] = "comprehensive"
    secondary_capture: bool = True
    parametric_map: bool = False
    commitment: bool = False
    tls: bool = False

    @property
    def name(self) -> str:
        """``AE@host:port``: how logs, SQL and the command line name this destination."""
        return f"{self.ae_title}@{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class CallerRule:
    """One entry of the allow-list: an AE title (``*`` for any) at an address or network."""

    ae_title: str
    network: ipaddress.IPv4Network | ipaddress.IPv6Network

    def admits(self, ae_title: str, address: str) -> bool:
        """Whether a caller with this AE title at this address may associate."""
        ip = ipaddress.ip_address(address)
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return self.ae_title in ("*", ae_title.strip()) and ip in self.network


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _flag(options: dict[str, str], key: str, default: bool) -> bool:
    value = options.pop(key, "1" if default else "0")
    if value not in ("0", "1"):
        raise ValueError(f"option {key}={value} must be {key}=0 or {key}=1")
    return value == "1"


def parse_destination(text: str) -> Destination:
    """Read ``AE@host:port[?sr=comprehensive3d&sc=1&pm=0&commit=1&tls=1]``.

    Raises
    ------
    ValueError
        Names what is wrong and shows the form that is right.
    """
    address, _, query = text.strip().partition("?")
    match = re.fullmatch(r"([^@]+)@(\[[^\]]+\]|[^:\[\]]+):(\d{1,5})", address)
    if match is None or not _AE_TITLE.fullmatch(match[1]) or not 0 < int(match[3]) < 65536:
        raise ValueError(
            f"destination {address!r} is not of the form AE@host:port "
            "(an AE title of at most 16 characters, a port from 1 to 65535)"
        )
    options = dict(parse_qsl(query, keep_blank_values=True))
    sr = options.pop("sr", "comprehensive")
    if sr not in ("comprehensive", "comprehensive3d"):
        raise ValueError(
            f"destination {address!r}: sr={sr} must be sr=comprehensive or sr=comprehensive3d"
        )
    destination = Destination(
        ae_title=match[1],
        host=match[2].strip("[]"),
        port=int(match[3]),
        sr="comprehensive3d" if sr == "comprehensive3d" else "comprehensive",
        secondary_capture=_flag(options, "sc", True),
        parametric_map=_flag(options, "pm", False),
        commitment=_flag(options, "commit", False),
        tls=_flag(options, "tls", False),
    )
    if options:
        known = "sr, sc, pm, commit and tls"
        raise ValueError(
            f"destination {address!r}: unknown option {min(options)!r}; known: {known}"
        )
    return destination


def parse_caller(text: str) -> CallerRule:
    """Read ``AE@address`` or ``AE@network/bits``; the AE may be ``*``.

    Raises
    ------
    ValueError
        Names what is wrong and shows the form that is right.
    """
    ae_title, _, network = text.strip().partition("@")
    if ae_title == "*" or _AE_TITLE.fullmatch(ae_title):
        with contextlib.suppress(ValueError):
            return CallerRule(ae_title, ipaddress.ip_network(network))
    raise ValueError(
        f"caller {text!r} is not of the form AE@address or AE@network/bits, "
        "for example PACS@192.0.2.10 or *@192.0.2.0/24 (addresses, not host names)"
    )


class Settings(BaseSettings):
    """Everything that can be set; see ``docs/operations.md`` for the table with explanations."""

    model_config = SettingsConfigDict(env_prefix="EPVS_", frozen=True, extra="forbid")

    ae_title: str = "EPVSNODE"
    host: str = "0.0.0.0"  # noqa: S104 - a DICOM node is there to be reached from the PACS
    port: int = Field(default=11112, ge=1, le=65535)
    callers: str = ""
    destinations: str = ""
    other_classes: Literal["refuse", "accept"] = "refuse"
    quiet_period_s: float = Field(default=30.0, gt=0)
    max_open_s: float = Field(default=5400.0, gt=0)
    data_dir: Path = Path("data")
    database_url: str = ""
    broker_url: str = "redis://127.0.0.1:6379/0"
    triton_url: str = "127.0.0.1:8001"
    triton_timeout_s: float = Field(default=60.0, gt=0)
    models_dir: Path = Path("triton_models")
    enhancement: Literal["stationary", "block-group", "none"] = "stationary"
    max_attempts: int = Field(default=3, ge=1)
    lease_s: float = Field(default=30.0, gt=0)
    sweep_interval_s: float = Field(default=1.0, gt=0)
    max_associations: int = Field(default=32, ge=1)
    network_timeout_s: float = Field(default=60.0, gt=0)
    spool_reserve_mb: int = Field(default=1024, ge=0)
    trust_store_status: bool = True
    station_name: str = Field(default="epvs-node", max_length=16)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is theirs
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Explicit arguments, then the environment, then the TOML file."""
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        config = os.environ.get("EPVS_CONFIG")
        if config:
            sources += (TomlConfigSettingsSource(settings_cls, toml_file=config),)
        return sources

    @field_validator("ae_title")
    @classmethod
    def _check_ae_title(cls, value: str) -> str:
        if not _AE_TITLE.fullmatch(value) or not value.strip():
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
            raise ValueError("names the same AE@host:port twice")
        return value

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: str) -> str:
        if not value.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
            raise ValueError("must begin with sqlite:/// or postgresql://")
        return value

    @model_validator(mode="before")
    @classmethod
    def _default_database(cls, values: dict[str, Any]) -> dict[str, Any]:
        if not values.get("database_url"):
            data_dir = Path(values.get("data_dir") or "data").absolute()
            values["database_url"] = f"sqlite:///{data_dir / 'epvs.sqlite'}"
        return values

    @cached_property
    def caller_rules(self) -> tuple[CallerRule, ...]:
        """The allow-list; empty means that nobody may associate."""
        return tuple(parse_caller(part) for part in _split(self.callers))

    @cached_property
    def destination_list(self) -> tuple[Destination, ...]:
        """Where results are sent."""
        return tuple(parse_destination(part) for part in _split(self.destinations))

    @property
    def spool_dir(self) -> Path:
        """Received instances, as Part 10 files named by hash."""
        return self.data_dir / "spool"

    @property
    def reports_dir(self) -> Path:
        """The exact bytes of every object that was or will be sent."""
        return self.data_dir / "reports"

    @property
    def worker_ready_file(self) -> Path:
        """Touched by a worker when it begins to take work."""
        return self.data_dir / "worker.ready"


def load_settings(**overrides: Any) -> Settings:
    """Read and validate the settings.

    Raises
    ------
    ConfigurationError
        Names each wrong setting, its value and what would be right.
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
    name = ".".join(str(part) for part in problem["loc"]) or "settings"
    if problem["type"] == "extra_forbidden":
        return f"{name}: no such setting; docs/operations.md lists them"
    message = str(problem["msg"]).removeprefix("Value error, ")
    # A URL may carry a password.
    value = "as given" if name.endswith("_url") else repr(problem.get("input"))
    return f"EPVS_{name.upper()} is {value}: {message}"


def _refuse_unknown_variables() -> None:
    known = {f"EPVS_{name.upper()}" for name in Settings.model_fields} | {"EPVS_CONFIG"}
    unknown = sorted(name for name in os.environ if name.startswith("EPVS_") and name not in known)
    if unknown:
        raise ConfigurationError(
            f"{', '.join(unknown)}: no such setting.",
            "The settings are listed in docs/operations.md.",
        )
