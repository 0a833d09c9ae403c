"""The end of a process during an attempt: what it has in hand is given back first.

Celery sends a signal to the processes of a worker that is stopped and whose tasks have not ended in
time (`worker.app.SOFT_SHUTDOWN_S`). It is SIGTERM, or what ``REMAP_SIGTERM`` names. By default it
ends them at once, and the attempt would be charged when its lease has expired.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from billiard.common import TERM_SIGNAL

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminated(BaseException):
    """The process is to end. Not an `Exception`, so that no stage takes it for one."""


@contextmanager
def raising_when_terminated() -> Iterator[None]:
    """Raise `Terminated` in this block on the signal, once; from then on it is ignored."""
    if threading.current_thread() is not threading.main_thread():  # only there are signals handled
        yield
        return

    def end(_number: int, _frame: Any) -> None:
        signal.signal(TERM_SIGNAL, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(TERM_SIGNAL, end)
    try:
        yield
    finally:
        if signal.getsignal(TERM_SIGNAL) is end:
            signal.signal(TERM_SIGNAL, before)


def end_process() -> None:
    """End the process by the signal that it has received."""
    signal.signal(TERM_SIGNAL, signal.SIG_DFL)
    os.kill(os.getpid(), TERM_SIGNAL)
