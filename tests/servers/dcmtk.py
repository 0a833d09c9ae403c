"""Where DCMTK's programs are: virtual environments have pynetdicom's of the same names."""

from __future__ import annotations

import shutil


def dcmtk_program(name: str) -> str:
    program = shutil.which(name, path="/usr/bin:/usr/local/bin")
    if program is None:
        raise RuntimeError(f"DCMTK's {name} is not installed; `make test` installs it")
    return program
