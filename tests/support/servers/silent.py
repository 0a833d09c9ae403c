"""A destination that swallows packets: no connection to it is ever made, and none is refused."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from core.destinations import DicomDestination

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def silent_destination(ae_title: str = "SILENT") -> Iterator[DicomDestination]:
    """Listen with a full backlog: Linux then drops every further SYN without an answer."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(address)
        probe = stack.enter_context(socket.socket())
        probe.settimeout(0.3)
        with suppress(TimeoutError):
            probe.connect(address)
            raise AssertionError("the destination is not silent")
        yield DicomDestination(ae_title, "127.0.0.1", address[1])
