"""Where results go: the kinds of destination, and how one is written in ``EPVS_DESTINATIONS``.

::

    AE@host:port[?sr=comprehensive3d&sc=1&pm=0&commit=1&notgraded=1&tls=1&tlsname=NAME]
    *@*:port[?the same]
    hl7://host:port[?application=RIS&facility=HOSPITAL&notgraded=1]

A DICOM storage SCP; whoever sent the study; HL7 v2 by MLLP.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Final, Literal
from urllib.parse import parse_qsl

from core.tls import is_certificate_name

AE_TITLE: Final = re.compile(r"[ -\[\]-~]{1,16}")
"""Printable ASCII without backslash (PS3.8 7.1.1.4)."""
_HOST_AND_PORT: Final = r"(\[[^\]]+\]|[^:\[\]@/]+):(\d{1,5})"
_HL7: Final = "hl7://"
_HL7_NAME: Final = re.compile(r"[A-Za-z0-9 ._-]{1,60}")
"""Without the characters that delimit HL7 fields and components."""
_ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class DicomDestination:
    """A storage SCP and what it is to receive."""

    ae_title: str
    host: str
    port: int
    sr: Literal["comprehensive", "comprehensive3d"] = "comprehensive"
    secondary_capture: bool = True
    parametric_map: bool = False
    commitment: bool = False
    not_graded: bool = False
    """Whether it is told of studies that could not be graded, too."""
    tls: bool = False
    tls_name: str = ""
    """Name that its certificate must carry, where that is not `host`."""

    @property
    def name(self) -> str:
        """``AE@host:port``: how logs, SQL and the command line name this destination."""
        return f"{self.ae_title}@{self.host}:{self.port}"

    @property
    def is_sender(self) -> bool:
        """Whether it stands for whoever sent the study."""
        return self.ae_title == self.host == _ANY

    def resolved(self, calling_ae: str, address: str) -> DicomDestination:
        """Return the sender that this stands for.

        Parameters
        ----------
        calling_ae : str
        address : str
            Numeric; an IPv4 address that a dual-stack socket reported as IPv6 becomes IPv4 again.
        """
        ip = ipaddress.ip_address(address)
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return replace(self, ae_title=calling_ae.strip(), host=str(ip))


@dataclass(frozen=True, slots=True)
class Hl7Destination:
    """A RIS or worklist that takes HL7 v2 results by MLLP."""

    host: str
    port: int
    application: str = ""
    """Receiving Application (MSH-5)."""
    facility: str = ""
    """Receiving Facility (MSH-6)."""
    not_graded: bool = False
    """Whether it is told of studies that could not be graded, too."""

    @property
    def name(self) -> str:
        """``hl7://host:port``."""
        return f"{_HL7}{self.host}:{self.port}"


Destination = DicomDestination | Hl7Destination


def parse_destination(text: str) -> Destination:
    """Read one entry of ``EPVS_DESTINATIONS``; the module's docstring shows the forms.

    Raises
    ------
    ValueError
        Names what is wrong and shows the form that is right.
    """
    address, _, query = text.strip().partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    try:
        if address.startswith(_HL7):
            return _parse_hl7(address, options)
        return _parse_dicom(address, options)
    except ValueError as error:
        raise ValueError(f"destination {address!r}: {error}") from None


def parse_dicom_destination(text: str) -> DicomDestination:
    """Read ``AE@host:port``, with options or without.

    Raises
    ------
    ValueError
        Names what is wrong and shows the form that is right.
    """
    destination = parse_destination(text)
    if isinstance(destination, Hl7Destination) or destination.is_sender:
        raise ValueError(f"destination {text.strip()!r} is not of the form AE@host:port")
    return destination


def _parse_dicom(address: str, options: dict[str, str]) -> DicomDestination:
    match = re.fullmatch(rf"([^@]+)@{_HOST_AND_PORT}", address)
    if match is None or not AE_TITLE.fullmatch(match[1]) or not 0 < int(match[3]) < 65536:
        raise ValueError(
            "not of the form AE@host:port (an AE title of at most 16 characters, a port from 1 to "
            "65535); *@*:port is whoever sent the study; hl7://host:port is a RIS"
        )
    if (match[1] == _ANY) != (match[2] == _ANY):
        raise ValueError("whoever sent the study is written *@*:port")
    sr = options.pop("sr", "comprehensive")
    if sr not in ("comprehensive", "comprehensive3d"):
        raise ValueError(f"sr={sr} must be sr=comprehensive or sr=comprehensive3d")
    destination = DicomDestination(
        ae_title=match[1],
        host=match[2].strip("[]"),
        port=int(match[3]),
        sr="comprehensive3d" if sr == "comprehensive3d" else "comprehensive",
        secondary_capture=_flag(options, "sc", True),
        parametric_map=_flag(options, "pm", False),
        commitment=_flag(options, "commit", False),
        not_graded=_flag(options, "notgraded", False),
        tls=_flag(options, "tls", False),
        tls_name=_tls_name(options),
    )
    if destination.tls_name and not destination.tls:
        raise ValueError("tlsname= without tls=1")
    _refuse_unknown(options, "sr, sc, pm, commit, notgraded, tls and tlsname")
    return destination


def _parse_hl7(address: str, options: dict[str, str]) -> Hl7Destination:
    match = re.fullmatch(_HOST_AND_PORT, address.removeprefix(_HL7))
    if match is None or not 0 < int(match[2]) < 65536:
        raise ValueError("not of the form hl7://host:port (a port from 1 to 65535)")
    destination = Hl7Destination(
        host=match[1].strip("[]"),
        port=int(match[2]),
        application=_hl7_name(options, "application"),
        facility=_hl7_name(options, "facility"),
        not_graded=_flag(options, "notgraded", False),
    )
    _refuse_unknown(options, "application, facility and notgraded")
    return destination


def _flag(options: dict[str, str], key: str, default: bool) -> bool:
    value = options.pop(key, "1" if default else "0")
    if value not in ("0", "1"):
        raise ValueError(f"option {key}={value} must be {key}=0 or {key}=1")
    return value == "1"


def _tls_name(options: dict[str, str]) -> str:
    value = options.pop("tlsname", "")
    if value and not is_certificate_name(value):
        raise ValueError(f"option tlsname={value} is no name that a certificate carries")
    return value


def _hl7_name(options: dict[str, str], key: str) -> str:
    value = options.pop(key, "")
    if value and not _HL7_NAME.fullmatch(value):
        raise ValueError(
            f"option {key}={value} must be letters, digits, spaces, dots, hyphens and underscores"
        )
    return value


def _refuse_unknown(options: dict[str, str], known: str) -> None:
    if options:
        raise ValueError(f"unknown option {min(options)!r}; known: {known}")
