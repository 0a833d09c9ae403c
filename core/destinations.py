"""Destinations of results, and the syntax of ``EPVS_DESTINATIONS``.

::

    AE@host:port[?sr=comprehensive3d&sc=1&pm=0&commit=1&notgraded=1&tls=1&tlsname=NAME
                  &reporter=AE@address]
    *@*:port[?the same options]
    hl7://host:port[?application=RIS&facility=HOSPITAL&notgraded=1&tls=1&tlsname=NAME]

From top to bottom: a DICOM storage SCP; the sender of each study; an HL7 v2 receiver (MLLP).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from core.callers import AE_TITLE, CallerRule, numeric_address, parse_caller
from core.results import SRClass, SRVariant
from core.tls import is_certificate_name

if TYPE_CHECKING:
    from collections.abc import Iterable

_HOST_AND_PORT: Final = r"(\[[^\]]+\]|[^:\[\]@/]+):(\d{1,5})"
_HL7: Final = "hl7://"
_HL7_NAME: Final = re.compile(r"[A-Za-z0-9 ._-]{1,60}")
"""Excludes the characters that delimit HL7 fields and components."""
_ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class DicomDestination:
    """A storage SCP and the objects that it is sent."""

    ae_title: str
    host: str
    port: int
    sr_class: SRClass = SRClass.COMPREHENSIVE
    secondary_capture: bool = True
    parametric_map: bool = False
    commitment: bool = False
    not_graded: bool = False
    """Whether it is also sent the SR on a study that was not graded."""
    tls: bool = False
    tls_name: str = ""
    """Name that its certificate must carry, if not `host`."""
    reporters: tuple[CallerRule, ...] = ()
    """Who else may report its storage commitments, for instance other nodes of its cluster."""

    @property
    def name(self) -> str:
        """``AE@host:port``, as in logs, SQL and on the command line."""
        return f"{self.ae_title}@{self.host}:{self.port}"

    @property
    def certificate_name(self) -> str:
        """Name that its certificate must carry."""
        return self.tls_name or self.host

    @property
    def is_sender(self) -> bool:
        """Whether it stands for the caller that opened each study (``*@*:port``)."""
        return self.ae_title == self.host == _ANY

    def resolved(self, calling_ae: str, address: str) -> DicomDestination:
        """Return this destination with the AE title and address of one sender.

        Parameters
        ----------
        calling_ae : str
        address : str
            Numeric. An IPv4-mapped IPv6 address, as a dual-stack socket reports it, is converted
            back to IPv4.
        """
        return replace(self, ae_title=calling_ae.strip(), host=str(numeric_address(address)))


@dataclass(frozen=True, slots=True)
class Hl7Destination:
    """A RIS or worklist that receives results as HL7 v2 messages (MLLP)."""

    host: str
    port: int
    application: str = ""
    """Receiving Application (MSH-5)."""
    facility: str = ""
    """Receiving Facility (MSH-6)."""
    not_graded: bool = False
    """Whether it also receives a message on a study that was not graded."""
    tls: bool = False
    tls_name: str = ""
    """Name that its certificate must carry, if not `host`."""

    @property
    def name(self) -> str:
        """``hl7://host:port``."""
        return f"{_HL7}{self.host}:{self.port}"


Destination = DicomDestination | Hl7Destination

DEFAULT_VARIANT: Final = SRVariant(SRClass.COMPREHENSIVE, parametric_map=False)
"""SR that is built where no DICOM destination asks for any."""


def sr_variant(destination: DicomDestination, *, graded: bool) -> SRVariant:
    """Return the SR variant that a destination is sent.

    Parameters
    ----------
    destination : DicomDestination
    graded : bool
        False for the SR on a study that was not graded, which has no parametric map.
    """
    return SRVariant(destination.sr_class, graded and destination.parametric_map)


def sr_variants(destinations: Iterable[Destination], *, graded: bool) -> tuple[SRVariant, ...]:
    """Return the SR variants to build for these destinations, those with the map first.

    An HL7 message is built from the first of them. A graded study always has an SR; one that was
    not graded has an SR only if a destination asks for it.
    """
    receiving = [d for d in destinations if graded or d.not_graded]
    variants = {
        sr_variant(destination, graded=graded)
        for destination in receiving
        if isinstance(destination, DicomDestination)
    }
    if not variants and (graded or receiving):
        return (DEFAULT_VARIANT,)
    return tuple(sorted(variants, key=lambda v: (not v.parametric_map, v.sr_class)))


def parse_destination(text: str) -> Destination:
    """Parse one entry of ``EPVS_DESTINATIONS``; the module's docstring shows the syntax.

    Raises
    ------
    ValueError
        With the fault and the correct syntax.
    """
    address, _, query = text.strip().partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    try:
        if address.startswith(_HL7):
            return _parse_hl7(address, options)
        reporters = [value for key, value in pairs if key == "reporter"]
        return _parse_dicom(address, options, reporters)
    except ValueError as error:
        raise ValueError(f"destination {address!r}: {error}") from None


def parse_dicom_destination(text: str) -> DicomDestination:
    """Parse ``AE@host:port``, with or without options.

    Raises
    ------
    ValueError
        With the fault and the correct syntax.
    """
    destination = parse_destination(text)
    if isinstance(destination, Hl7Destination) or destination.is_sender:
        raise ValueError(f"destination {text.strip()!r} is not of the form AE@host:port")
    return destination


def _parse_dicom(address: str, options: dict[str, str], reporters: list[str]) -> DicomDestination:
    options.pop("reporter", None)  # may be repeated, so they are given apart
    match = re.fullmatch(rf"([^@]+)@{_HOST_AND_PORT}", address)
    if match is None or not AE_TITLE.fullmatch(match[1]) or not 0 < int(match[3]) < 65536:
        raise ValueError(
            "not of the form AE@host:port (an AE title of at most 16 characters, a port from 1 to "
            "65535); *@*:port is the sender of each study; hl7://host:port is a RIS"
        )
    if (match[1] == _ANY) != (match[2] == _ANY):
        raise ValueError("the sender of each study is written *@*:port")
    destination = DicomDestination(
        ae_title=match[1],
        host=match[2].strip("[]"),
        port=int(match[3]),
        sr_class=_sr_class(options),
        secondary_capture=_flag(options, "sc", True),
        parametric_map=_flag(options, "pm", False),
        commitment=_flag(options, "commit", False),
        not_graded=_flag(options, "notgraded", False),
        tls=(tls := _flag(options, "tls", False)),
        tls_name=_tls_name(options, tls=tls),
        reporters=tuple(_parse_reporter(text) for text in reporters),
    )
    _refuse_unknown(options, "sr, sc, pm, commit, notgraded, tls, tlsname and reporter")
    return destination


def _parse_reporter(text: str) -> CallerRule:
    try:
        return parse_caller(text)
    except ValueError as error:
        raise ValueError(f"option reporter={text}: {error}") from None


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
        tls=(tls := _flag(options, "tls", False)),
        tls_name=_tls_name(options, tls=tls),
    )
    _refuse_unknown(options, "application, facility, notgraded, tls and tlsname")
    return destination


def _sr_class(options: dict[str, str]) -> SRClass:
    value = options.pop("sr", SRClass.COMPREHENSIVE)
    if value not in list(SRClass):
        raise ValueError(f"sr={value} must be sr=comprehensive or sr=comprehensive3d")
    return SRClass(value)


def _flag(options: dict[str, str], key: str, default: bool) -> bool:
    value = options.pop(key, "1" if default else "0")
    if value not in ("0", "1"):
        raise ValueError(f"option {key}={value} must be {key}=0 or {key}=1")
    return value == "1"


def _tls_name(options: dict[str, str], *, tls: bool) -> str:
    value = options.pop("tlsname", "")
    if value and not tls:
        raise ValueError("tlsname= without tls=1")
    if value and not is_certificate_name(value):
        raise ValueError(f"option tlsname={value} is not a valid certificate name")
    return value


def _hl7_name(options: dict[str, str], key: str) -> str:
    value = options.pop(key, "")
    if value and not _HL7_NAME.fullmatch(value):
        raise ValueError(
            f"option {key}={value} may contain only letters, digits, spaces, dots, hyphens and "
            "underscores"
        )
    return value


def _refuse_unknown(options: dict[str, str], known: str) -> None:
    if options:
        raise ValueError(f"unknown option {min(options)!r}; known: {known}")
