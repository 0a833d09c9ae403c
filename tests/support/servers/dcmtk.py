"""Locates DCMTK's programs."""

from __future__ import annotations

import shutil


def dcmtk_program(name: str) -> str:
    """Path of a program of DCMTK.

    Not the first on PATH: pynetdicom installs programs of the same names, which come first in an
    activated environment.
    """
    program = shutil.which(name, path="/usr/bin:/usr/local/bin")
    if program is None:
        raise RuntimeError(f"{name} is not installed; `make test` installs it")
    return program
