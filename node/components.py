"""Commands of the other components, run as processes: ``node`` imports ``core`` and ``db`` only."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from core.errors import EpvsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def run_module(
    module: str,
    arguments: Sequence[str] = (),
    *,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
) -> Iterator[str]:
    """Run ``python -m MODULE ARGUMENT…`` and yield each line of its output as it is written.

    Parameters
    ----------
    module : str
    arguments : sequence of str
    env : mapping, optional
        Variables added to the environment of this process.
    stdin : str
        Text on the standard input of the command.

    Raises
    ------
    EpvsError
        The command failed; the message is its standard error output.
    """
    # Files, not pipes, for input and errors: a full pipe would block one side or the other.
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as errors:
        given.write(stdin)
        given.seek(0)
        with subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **(env or {})},
        ) as process:
            for line in process.stdout or ():
                yield line.rstrip("\n")
        if process.returncode != 0:
            errors.seek(0)
            message = errors.read().strip()
            raise EpvsError(message or f"{module} ended with code {process.returncode}.")
