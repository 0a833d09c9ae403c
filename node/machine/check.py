"""A check of the machine, and the programs that it asks."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

from node.check import Check
from node.machine.requirements import PROFILES

_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class MachineCheck(Check):
    """A check that some or all of the profiles need."""

    needed_by: tuple[str, ...] = PROFILES


@dataclass(frozen=True)
class Output:
    """What a program wrote, and its exit code."""

    code: int
    stdout: str
    stderr: str


def run(*command: str) -> Output | None:
    """Run a program of the host and wait for it.

    Returns
    -------
    Output or None
        None where the program is not installed. A program that hangs or cannot be started has the
        exit code 124 or 126, as in a shell.
    """
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return Output(124, "", f"{command[0]} did not respond within {_TIMEOUT_S:g} s")
    except OSError as error:
        return Output(126, "", str(error))
    return Output(done.returncode, done.stdout, done.stderr)
