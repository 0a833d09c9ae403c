"""What a backup states about itself, and the hashes of all that is in it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Self

from core.errors import EpvsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
HASHES: Final = "files.sha256"
AUDIT_STATUS: Final = "audit-checkpoints.json"
AUDIT_CHECKPOINTS: Final = "audit-checkpoints"
_LINE: Final = re.compile(r"([0-9a-f]{64})  ((?:[\w-]+/)*[\w-]+(?:\.\w+)?)")
"""As ``sha256sum`` writes it; no name leads out of the folder."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup states about itself.

    Attributes
    ----------
    format : int
        Of this file.
    made_at : str
        When the database was read: ISO 8601, UTC, by the database's clock.
    node_version, schema : str
        Version of the node, and the migration that its database is at.
    database : str
        Name of the dump.
    server, program : str
        Versions of the database and of what made the dump.
    audit_head : str
        Number and hash of the newest audit event, for ``epvs-node audit verify --head``.
    n_studies, n_files, n_bytes : int
        How many studies and files are in it, and the size of the files.
    missing : list of str
        Files that the database names and that were missing or not what was stored.
    hashes_sha256 : str
        SHA-256 of ``files.sha256``.
    """

    format: int
    made_at: str
    node_version: str
    schema: str
    database: str
    server: str
    program: str
    audit_head: str
    n_studies: int
    n_files: int
    n_bytes: int
    missing: list[str]
    hashes_sha256: str

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of a backup.

        Raises
        ------
        EpvsError
            There is none, or it is of a later version or damaged.
        """
        try:
            values: Any = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise EpvsError(
                f"{folder} holds no {MANIFEST}: it is no backup, or one that was not finished.",
                "Take another backup.",
            ) from None
        except (OSError, ValueError) as error:
            raise _damaged(folder, MANIFEST) from error
        if not isinstance(values, dict):
            raise _damaged(folder, MANIFEST)
        if values.get("format") != FORMAT:
            raise EpvsError(
                f"The backup has format {values.get('format')}; this version reads {FORMAT}.",
                f"Restore it with epvs-node {values.get('node_version')}.",
            )
        if set(values) != {field.name for field in fields(cls)}:
            raise _damaged(folder, MANIFEST)
        return cls(**values)

    def write(self, folder: Path) -> None:
        """Write the manifest durably: a backup is complete when it has one."""
        unfinished = folder / f"{MANIFEST}.part"
        write_durably(unfinished, json.dumps(asdict(self), indent=2) + "\n")
        unfinished.replace(folder / MANIFEST)
        os.sync()


def write_hashes(folder: Path, hashes: Mapping[str, str]) -> str:
    """Write ``files.sha256`` for names and their hashes, and return its own hash."""
    text = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(hashes.items()))
    write_durably(folder / HASHES, text)
    return hashlib.sha256(text.encode()).hexdigest()


def read_hashes(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Return the hash of every file in a backup, by its name.

    Raises
    ------
    EpvsError
        The list is missing or was changed.
    """
    try:
        content = (folder / HASHES).read_bytes()
    except OSError as error:
        raise _damaged(folder, HASHES) from error
    if hashlib.sha256(content).hexdigest() != manifest.hashes_sha256:
        raise _damaged(folder, HASHES)
    return dict(_parse(folder, content.decode()))


def _parse(folder: Path, text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            raise _damaged(folder, HASHES)
        yield found[2], found[1]


def verify(folder: Path, hashes: Mapping[str, str]) -> None:
    """Read every file of a backup and compare its hash.

    Raises
    ------
    EpvsError
        A file is missing or was changed.
    """
    for name, sha256 in hashes.items():
        try:
            found = hash_of(folder / name)
        except OSError as error:
            raise _damaged(folder, name) from error
        if found != sha256:
            raise _damaged(folder, name)


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal.

    Raises
    ------
    OSError
        It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_durably(source: Path, target: Path) -> None:
    """Copy a file, so that it survives a power failure once its folder does too.

    Raises
    ------
    OSError
        It cannot be read or written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reading, target.open("xb") as writing:
        shutil.copyfileobj(reading, writing, 1024 * 1024)
        writing.flush()
        os.fsync(writing.fileno())


def write_durably(path: Path, text: str) -> None:
    """Write a text file, as `copy_durably` does."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _damaged(folder: Path, name: str) -> EpvsError:
    return EpvsError(
        f"The backup is damaged: {name} in {folder} is missing or was changed.",
        "Nothing was restored. Use another copy; 'sha256sum --quiet -c files.sha256' in the folder "
        "names every damaged file.",
    )
