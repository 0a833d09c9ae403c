"""Every status of a C-STORE response, and what it means for the sender.

==========  =================================================  =================================
status      when                                               what the sender should do
==========  =================================================  =================================
``0x0000``  the instance is durable: file and row              nothing
``0x0110``  internal error (the log has the details)           report it to the operator
``0x0122``  the SOP class is not that of the context used      correct the sender
``0xA700``  disk full, below its reserve, or database down     send again later
``0xA900``  command and data set name different objects        correct the sender
``0xC010``  the data set cannot be read, or is ambiguous       correct the instance
``0xC011``  a UID that identifies the instance is missing      correct the instance
``0xC012``  such a UID is invalid (PS3.5 section 9.1)          correct the instance
``0xC013``  longer than ``EPVS_MAX_INSTANCE_MB``, or over      raise the limit, or do not send it
            256 MiB when inflated                              deflated
==========  =================================================  =================================

The ranges are those of PS3.4 section B.2.3 and PS3.7 section C.4.2; the last digits are specific to
this node. An instance whose SOP Instance UID is known with other content is quarantined and
answered ``0x0000``: it is stored, and sending it again would change nothing.
"""

from __future__ import annotations

from enum import IntEnum

from core.errors import EpvsError


class Status(IntEnum):
    """C-STORE response status; see the table above."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_MISMATCH = 0xA900
    HEADER_UNREADABLE = 0xC010
    UID_MISSING = 0xC011
    UID_INVALID = 0xC012
    TOO_LARGE = 0xC013


class Refused(EpvsError):
    """An instance that is not stored.

    Parameters
    ----------
    status : Status
        Status of the response.
    message : str
        Reason, without patient data; also the Error Comment of the response, cut to 64 characters.
    """

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
