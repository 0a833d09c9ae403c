"""Settings given as files: ``EPVS_X_FILE`` names a file that holds the value of ``EPVS_X``.

A secret in a file is neither in the environment nor on the command line of any process, where
``docker inspect``, ``ps`` and ``/proc`` show it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

_PREFIX: Final = "EPVS_"
_SUFFIX: Final = "_FILE"


def variable(name: str) -> str:
    """Return the environment variable of a setting, given the name of its field."""
    return f"{_PREFIX}{name.upper()}"


def file_variable(name: str) -> str:
    """Return the variable that names a file with the value of a setting."""
    return variable(name) + _SUFFIX


def read_setting_files(names: Iterable[str]) -> dict[str, str]:
    """Return the values of those settings that are given as files.

    Parameters
    ----------
    names : iterable of str
        Fields of the settings.

    Returns
    -------
    dict
        Field to content of its file, without the line break at the end. An empty variable counts
        as not set.

    Raises
    ------
    ConfigurationError
        A file is empty or cannot be read, or the setting is also given as a value. The message
        contains the setting and the path, never the content.
    """
    return {name: _read(name) for name in names if os.environ.get(file_variable(name))}


def _read(name: str) -> str:
    path = os.environ[file_variable(name)]
    if os.environ.get(variable(name)):
        raise ConfigurationError(
            f"{variable(name)} and {file_variable(name)} are both set.", "Unset one of them."
        )
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{file_variable(name)} names {path}, which cannot be read: {error.strerror}.",
            "Correct the path, or let the node's user read the file.",
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"{file_variable(name)} names {path}, which is not text.",
            f"Write the value of {variable(name)} into it, in UTF-8.",
        ) from None
    if not text.strip():  # an empty database URL would mean the default one
        raise ConfigurationError(
            f"{file_variable(name)} names {path}, which is empty.",
            f"Write the value of {variable(name)} into it, or unset {file_variable(name)}.",
        )
    return text.removesuffix("\n").removesuffix("\r")
