"""The lock files: every package that is installed, with its version and hashes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parents[1]

LOCKS: Final = (
    "requirements/node.lock",
    "requirements/test.lock",
    "node/embedded/triton.lock",
    "node/embedded/redis.lock",
)
"""Every lock file, as `make lock` writes them."""

_LINE_END: Final = " \\\n"
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of a lock file.

    Parameters
    ----------
    name : str
        Canonical name.
    version : str
    marker : str
        Environments in which it is installed (PEP 508); empty: in all.
    hashes : tuple of str
        SHA-256 of each of its distributions, hexadecimal.
    """

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def read_lock(path: Path) -> list[Pin]:
    """Read a lock file; nothing in it is skipped.

    Raises
    ------
    ValueError
        A line is not a package with an exact version and SHA-256 hashes, or there is none.
    """
    pins = []
    for line in path.read_text(encoding="utf-8").replace(_LINE_END, " ").splitlines():
        requirement, *hashes = re.split(r"\s+(?=--hash=)", line.strip())
        found = [_HASH.fullmatch(text) for text in hashes]
        try:
            parsed = Requirement(requirement)
            (specifier,) = parsed.specifier
        except (InvalidRequirement, ValueError):
            raise ValueError(f"{path}: {requirement!r} is not a package with a version") from None
        if specifier.operator != "==" or "*" in specifier.version or not found or not all(found):
            raise ValueError(f"{path}: {parsed.name} has no exact version, or a hash is missing")
        pins.append(
            Pin(
                canonicalize_name(parsed.name),
                specifier.version,
                str(parsed.marker or ""),
                tuple(match[1] for match in found if match),
            )
        )
    if not pins:
        raise ValueError(f"{path} is empty")
    return pins
