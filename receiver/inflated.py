"""Inflates deflated data sets, a bounded number of bytes and a little at a time."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from receiver.elements import WINDOW_BYTES, unreadable
from receiver.status import Refused, Status

if TYPE_CHECKING:
    from receiver.elements import Read

MAX_INFLATED_BYTES: Final = 256 * 1024 * 1024
"""Longest deflated data set, when inflated."""


class Inflated:
    """Reads a deflated data set (PS3.5 section A.5), of which a few windows are in memory at once.

    Parameters
    ----------
    read : Read
        Reads the deflated bytes.
    """

    def __init__(self, read: Read) -> None:
        self._deflated = read
        self._taken = 0
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._base = 0
        """Position of what is in memory."""
        self._window = bytearray()

    def read(self, position: int, length: int) -> bytes:
        """Read from `position` on, as `Read` describes.

        Raises
        ------
        Refused
            The bytes are not deflated, or too many when inflated.
        """
        while self._base + len(self._window) < position + length:
            piece = self._next()
            if not piece:
                break
            if self._base + len(self._window) + len(piece) > MAX_INFLATED_BYTES:
                raise Refused(Status.TOO_LARGE, f"Inflates to over {MAX_INFLATED_BYTES >> 20} MiB.")
            self._window += piece
            passed = min(position - self._base, len(self._window))
            if passed > 0:
                del self._window[:passed]
                self._base += passed
        offset = position - self._base
        return bytes(self._window[offset : offset + length])

    def _next(self) -> bytes:
        """Inflate a little more; nothing at the end."""
        try:
            while not self._inflate.eof:
                deflated = self._inflate.unconsumed_tail
                if not deflated:
                    deflated = self._deflated(self._taken, WINDOW_BYTES)
                    self._taken += len(deflated)
                if piece := self._inflate.decompress(deflated, WINDOW_BYTES):
                    return piece
                if not deflated:
                    break
        except zlib.error:
            raise unreadable("is not deflated, but its transfer syntax says so") from None
        return b""
