"""DIMSE command sets, decoded and encoded without a data dictionary and with bounded size.

A command set is a handful of elements of group 0000, always in Implicit VR Little Endian (PS3.7
section 6.3.1). Only the elements of a request that the receiver acts on are decoded; a response
repeats the UIDs of its request unchanged.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

MAX_COMMAND_BYTES: Final = 16 * 1024
"""Many times the longest valid command: ten elements, with UIDs of 64 bytes."""

_NO_DATA_SET: Final = 0x0101
_RESPONSE_BIT: Final = 0x8000
_ELEMENT: Final = struct.Struct("<HHL")
_US: Final = struct.Struct("<H")

# Element numbers of group 0000 (PS3.7 annex E.1).
_GROUP_LENGTH: Final = 0x0000
_AFFECTED_SOP_CLASS_UID: Final = 0x0002
_REQUESTED_SOP_CLASS_UID: Final = 0x0003
_COMMAND_FIELD: Final = 0x0100
_MESSAGE_ID: Final = 0x0110
_RESPONDED_TO: Final = 0x0120
_DATA_SET_TYPE: Final = 0x0800
_STATUS: Final = 0x0900
_ERROR_COMMENT: Final = 0x0902
_AFFECTED_SOP_INSTANCE_UID: Final = 0x1000
_EVENT_TYPE_ID: Final = 0x1002


class Operation(IntEnum):
    """Command Field of the requests that are distinguished (PS3.7 annex E.1)."""

    C_STORE = 0x0001
    C_ECHO = 0x0030
    N_EVENT_REPORT = 0x0100
    C_CANCEL = 0x0FFF


class DimseStatus(IntEnum):
    """Statuses common to all operations (PS3.7 annex C)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    UNRECOGNIZED_OPERATION = 0x0211
    RESOURCE_LIMITATION = 0x0213


class BadCommand(ValueError):
    """A command set that cannot be answered; the message quotes no value."""


@dataclass(frozen=True, slots=True)
class Command:
    """A request."""

    field: int
    """Command Field; not necessarily an `Operation`."""
    message_id: int
    has_data_set: bool
    sop_class_uid: str
    """Affected or else Requested SOP Class UID; may be empty or invalid."""
    sop_instance_uid: str
    event_type_id: int | None


def parse_command(encoded: bytes) -> Command:
    """Read a command set.

    Parameters
    ----------
    encoded : bytes
        All fragments together, at most `MAX_COMMAND_BYTES`.

    Raises
    ------
    BadCommand
        It is truncated, has elements of another group, lacks an element that the response needs, or
        is itself a response: the receiver makes no requests.
    """
    values = _elements(encoded)
    field = _number(values, _COMMAND_FIELD)
    if field & _RESPONSE_BIT:
        raise BadCommand("a response without a request")
    # Only C-CANCEL-RQ has no Message ID; it gets no response (PS3.7 section 9.3.2.3).
    message_id = 0 if field == Operation.C_CANCEL else _number(values, _MESSAGE_ID)
    sop_class = values.get(_AFFECTED_SOP_CLASS_UID) or values.get(_REQUESTED_SOP_CLASS_UID, b"")
    return Command(
        field=field,
        message_id=message_id,
        has_data_set=_number(values, _DATA_SET_TYPE) != _NO_DATA_SET,
        sop_class_uid=_text(sop_class),
        sop_instance_uid=_text(values.get(_AFFECTED_SOP_INSTANCE_UID, b"")),
        event_type_id=_number(values, _EVENT_TYPE_ID) if _EVENT_TYPE_ID in values else None,
    )


def response(command: Command, status: int, comment: str = "") -> bytes:
    """Encode the response to a request, without a data set (PS3.7 sections 9.3 and 10.3).

    Parameters
    ----------
    command : Command
    status : int
    comment : str, optional
        Error Comment; cut to 64 characters.
    """
    body = bytearray()
    if command.sop_class_uid:
        body += _element(_AFFECTED_SOP_CLASS_UID, _padded(command.sop_class_uid, b"\0"))
    body += _element(_COMMAND_FIELD, _US.pack(command.field | _RESPONSE_BIT))
    body += _element(_RESPONDED_TO, _US.pack(command.message_id))
    body += _element(_DATA_SET_TYPE, _US.pack(_NO_DATA_SET))
    body += _element(_STATUS, _US.pack(status))
    if comment:
        body += _element(_ERROR_COMMENT, _padded(comment[:64], b" "))
    if command.sop_instance_uid:
        body += _element(_AFFECTED_SOP_INSTANCE_UID, _padded(command.sop_instance_uid, b"\0"))
    if command.event_type_id is not None:
        body += _element(_EVENT_TYPE_ID, _US.pack(command.event_type_id))
    return _element(_GROUP_LENGTH, struct.pack("<L", len(body))) + bytes(body)


def _elements(encoded: bytes) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    position = 0
    while position < len(encoded):
        start = position + _ELEMENT.size
        if start > len(encoded):
            raise BadCommand("a truncated element")
        group, number, length = _ELEMENT.unpack_from(encoded, position)
        if group:
            raise BadCommand("an element of another group than 0000")
        position = start + length
        if position > len(encoded):
            raise BadCommand(f"(0000,{number:04X}) longer than itself")
        values[number] = encoded[start:position]
    return values


def _number(values: dict[int, bytes], number: int) -> int:
    value = values.get(number, b"")
    if len(value) != _US.size:
        raise BadCommand(f"(0000,{number:04X}) missing or of a wrong length")
    return int.from_bytes(value, "little")


def _text(value: bytes) -> str:
    return value.strip(b"\0 ").decode("latin-1")  # any bytes: a response repeats them


def _element(number: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, number, len(value)) + value


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("latin-1", "replace")
    return value + padding * (len(value) % 2)
