"""The shared library of this Python, which Triton's Python backend loads."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from core.errors import ConfigurationError


def libpython_dir(version: str) -> Path:
    """Return the folder of this interpreter's shared library.

    Parameters
    ----------
    version : str
        Version of this interpreter, for example ``3.11``.

    Raises
    ------
    ConfigurationError
        This Python installation has none; says how to install it.
    """
    library = f"libpython{version}.so.1.0"
    folders = (
        sysconfig.get_config_var("LIBDIR") or "",
        f"{sys.base_prefix}/lib",
        f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}",
        *("/usr/lib64", "/usr/lib", "/usr/local/lib"),
    )
    for folder in folders:
        if folder and Path(folder, library).is_file():
            return Path(folder)
    raise ConfigurationError(
        f"The embedded Triton needs {library}, which this Python installation lacks.",
        f"Install the Debian package libpython{version}, or use a Python with a shared library.",
    )
