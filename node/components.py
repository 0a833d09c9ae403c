"""Run a command of another room as a process: ``node`` imports ``core`` and ``db`` only."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from core.errors import EpvsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def run_room(
    module: str,
    arguments: Sequence[str] = (),
    *,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
) -> Iterator[str]:
    """Run ``python -m MODULE ARGUMENT…`` and yield its output, line by line, as it comes.

    Parameters
    ----------
    module : str
    arguments : sequence of str
    env : mapping, optional
        Added to this process's environment.
    stdin : str
        What the command reads from standard input.

    Raises
    ------
    EpvsError
        The command failed; its message is what it wrote to standard error.
    """
    # Files rather than pipes for the other two streams, so that neither side can block the other.
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as complaints:
        given.write(stdin)
        given.seek(0)
        with subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env={**os.environ, **(env or {})},
        ) as process:
            for line in process.stdout or ():
                yield line.rstrip("\n")
        if process.returncode != 0:
            complaints.seek(0)
            message = complaints.read().strip()
            raise EpvsError(message or f"{module} ended with code {process.returncode}.")
