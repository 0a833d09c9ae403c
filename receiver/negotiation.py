"""Negotiation of an association as the acceptor: A-ASSOCIATE-RQ in, A-ASSOCIATE-AC out (PS3.8 7.1).

The only module that knows how associations are negotiated. It uses pynetdicom's PDU classes and its
`negotiate_as_acceptor`; it touches no socket. Of a request it reads the application context, the
presentation contexts, the maximum length and the role selection. Every other item is optional for
the acceptor, and leaving its answer out declines it (PS3.7 annex D.3.3): asynchronous operations,
extended negotiation and user identity, whose passwords are therefore never decoded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationVersionNameNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import negotiate_as_acceptor

from core.version import NAME, VERSION
from receiver.contexts import REJECTION_REASONS
from receiver.spool import IMPLEMENTATION_CLASS_UID

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydicom.uid import UID
    from pynetdicom.presentation import PresentationContext

MAXIMUM_LENGTH: Final = 131_072
"""Longest PDU that peers are asked to send, in bytes: DCMTK's maximum; longer ones gain nothing."""
MAX_ITEMS: Final = 10_000
"""Items and sub-items of a request. 128 contexts with all 62 transfer syntaxes have 8,200; a
request of 1 MiB could hold 260,000 empty ones."""
MAX_SYNTAXES: Final = 256
"""Sub-items of one presentation context; pynetdicom compares each with all before it."""

_FIXED_BYTES: Final = 74
"""Header and fixed fields of an A-ASSOCIATE-RQ (PS3.8 table 9-11)."""
_ITEM: Final = struct.Struct(">BxH")
_CONTEXT_HEAD_BYTES: Final = 4

# Item types of PS3.8 section 9.3.2 and annex D.1, and of PS3.7 annex D.3.3.4.
_APPLICATION_CONTEXT: Final = 0x10
_PRESENTATION_CONTEXT: Final = 0x20
_SYNTAXES: Final = frozenset({0x30, 0x40})
_USER_INFORMATION: Final = 0x50
_USER_ITEMS: Final = frozenset({0x51, 0x54})
"""Maximum Length; SCP/SCU Role Selection."""

_APPLICATION_CONTEXT_NAME: Final = "1.2.840.10008.3.1.1.1"
_VERSION_BIT: Final = 0x01


class MalformedRequest(ValueError):
    """The first PDU of a connection cannot be read as an A-ASSOCIATE-RQ."""


class Context(NamedTuple):
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True)
class Request:
    """An A-ASSOCIATE-RQ, reduced to what the acceptor decides on."""

    calling_ae: str
    called_ae: str
    has_known_version: bool
    """Bit 0 of the protocol version, the only one to be tested (PS3.8 table 9-11)."""
    has_known_application_context: bool
    max_length: int
    """Longest PDU that the peer receives, in bytes; 0 is unlimited."""
    contexts: Sequence[PresentationContext]
    roles: Mapping[UID, tuple[bool | None, bool | None]]
    """Proposed (SCU, SCP) roles by SOP class."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An accepted association."""

    pdu: bytes
    """Encoded A-ASSOCIATE-AC."""
    contexts: Mapping[int, Context]
    """Accepted presentation contexts by context ID."""
    rejected: Mapping[str, str]
    """Why each abstract syntax that was rejected was, see `REJECTION_REASONS`."""


def read_request(pdu: bytes) -> Request:
    """Decode an A-ASSOCIATE-RQ.

    Parameters
    ----------
    pdu : bytes
        The whole PDU, at most `receiver.pdu.MAX_PDU_BYTES`.

    Raises
    ------
    MalformedRequest
    """
    request = A_ASSOCIATE_RQ()
    try:
        request.decode(_relevant_items(pdu))
        primitive = request.to_primitive()
        contexts = primitive.presentation_context_definition_list
        # Decoded without them, a context would fail only in the negotiation.
        is_complete = all(each.abstract_syntax and each.transfer_syntax for each in contexts)
    except Exception as error:
        # pynetdicom raises many kinds of errors, and their messages quote values.
        raise MalformedRequest(type(error).__name__) from error
    if not is_complete or len({each.context_id for each in contexts}) < len(contexts):
        raise MalformedRequest("contexts without syntaxes, or several of one ID")
    return Request(
        calling_ae=request.calling_ae_title.strip(),
        called_ae=request.called_ae_title.strip(),
        has_known_version=bool(request.protocol_version & _VERSION_BIT),
        has_known_application_context=(
            request.application_context_name == _APPLICATION_CONTEXT_NAME
        ),
        max_length=primitive.maximum_length_received or 0,
        contexts=contexts,
        roles={
            cast("UID", each.sop_class_uid): (each.scu_role, each.scp_role)
            for each in primitive.user_information
            if isinstance(each, SCP_SCU_RoleSelectionNegotiation)
        },
    )


def accept(request: Request, supported: Sequence[PresentationContext]) -> Acceptance:
    """Accept a request with those of its presentation contexts that are supported.

    An association without any accepted context is accepted too (PS3.8 section 7.1.1.14 leaves the
    result to each context); its sender learns from the results why nothing can be sent.
    """
    results, roles = negotiate_as_acceptor(
        list(request.contexts), list(supported), dict(request.roles)
    )
    primitive = A_ASSOCIATE()
    primitive.application_context_name = _APPLICATION_CONTEXT_NAME
    primitive.calling_ae_title = request.calling_ae
    primitive.called_ae_title = request.called_ae
    primitive.result, primitive.result_source = 0x00, 0x01
    primitive.presentation_context_definition_results_list = results
    primitive.maximum_length_received = MAXIMUM_LENGTH
    primitive.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version_name = ImplementationVersionNameNotification()
    version_name.implementation_version_name = f"{NAME} {VERSION}"[:16]
    primitive.user_information += [version_name, *roles]
    return Acceptance(
        pdu=A_ASSOCIATE_AC(primitive).encode(),
        contexts={
            cast("int", each.context_id): Context(
                str(each.abstract_syntax), str(each.transfer_syntax[0])
            )
            for each in results
            if each.result == 0x00
        },
        rejected={
            str(each.abstract_syntax): REJECTION_REASONS.get(each.result or 0, "other")
            for each in results
            if each.result != 0x00
        },
    )


def _relevant_items(pdu: bytes) -> bytes:
    """Copy a request without the items that are not read; items of unknown types are to be ignored.

    Raises
    ------
    ValueError
        A length does not fit, or there are more items than `MAX_ITEMS` or `MAX_SYNTAXES` allow.
    """
    if len(pdu) < _FIXED_BYTES:
        raise ValueError("shorter than its fixed fields")
    n_items = 0
    kept = bytearray(pdu[:_FIXED_BYTES])
    for kind, value in _items(pdu[_FIXED_BYTES:]):
        n_items += 1
        if n_items > MAX_ITEMS:
            raise ValueError("too many items")
        if kind == _APPLICATION_CONTEXT:
            relevant = value
        elif kind == _PRESENTATION_CONTEXT:
            head, sub_items = value[:_CONTEXT_HEAD_BYTES], list(_items(value[_CONTEXT_HEAD_BYTES:]))
            if len(sub_items) > MAX_SYNTAXES:
                raise ValueError("too many transfer syntaxes")
            n_items += len(sub_items)
            relevant = head + _encoded(sub_items, _SYNTAXES)
        elif kind == _USER_INFORMATION:
            sub_items = list(_items(value))
            n_items += len(sub_items)
            relevant = _encoded(sub_items, _USER_ITEMS)
        else:
            continue
        kept += _ITEM.pack(kind, len(relevant)) + relevant
    if n_items > MAX_ITEMS:
        raise ValueError("too many items")
    return bytes(kept)


def _items(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each item (PS3.8 section 9.3.1)."""
    position = 0
    while position < len(encoded):
        kind, length = _ITEM.unpack_from(encoded, position)
        position += _ITEM.size
        if position + length > len(encoded):
            raise ValueError("an item is longer than what it lies in")
        yield kind, encoded[position : position + length]
        position += length


def _encoded(items: Sequence[tuple[int, bytes]], kinds: frozenset[int]) -> bytes:
    return b"".join(_ITEM.pack(kind, len(value)) + value for kind, value in items if kind in kinds)
