"""Makes a backup while the node works.

Order: audit checkpoints, files, database, and again the files that came in between. So every file
that the dump names is in the backup, also one that is removed while it is made, and no checkpoint
states more than the dump holds.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from core.errors import EpvsError
from core.version import VERSION
from db import audit, migrate
from db.clock import current_time
from db.models import Study
from db.session import create_engine, unit_of_work
from db.stored_files import list_stored_files
from node.backup import dumps
from node.backup.manifest import (
    AUDIT_CHECKPOINTS,
    AUDIT_STATUS,
    FORMAT,
    Manifest,
    copy_durably,
    hash_of,
    write_hashes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from core.settings import Settings
    from db.stored_files import StoredFile


def make_backup(settings: Settings, folder: Path, *, operator: str) -> Manifest:
    """Make a backup of the node in a new folder.

    Files are hard links where `folder` is on the file system of the data folder, else copies.

    Parameters
    ----------
    settings : Settings
    folder : Path
        Must not exist, or be empty.
    operator : str
        Who makes it, for the audit trail.

    Raises
    ------
    EpvsError
        The database has another schema or cannot be dumped, or the folder cannot be written.
    """
    try:
        _require_schema(settings)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise EpvsError(f"{folder} is not empty.", "Name a new folder for each backup.")
        return _make(settings, folder, operator)
    except sa.exc.DatabaseError as error:  # its text may quote what was overwritten
        raise dumps.damaged(dumps.describe(settings), type(error.orig).__name__) from None
    except (OSError, shutil.Error) as error:
        raise EpvsError(
            f"The backup cannot be written to {folder}: {error.strerror or error}.",
            "Remove the folder, and name one with enough space that this account may write.",
        ) from error


def _make(settings: Settings, folder: Path, operator: str) -> Manifest:
    hashes = _copy_checkpoints(settings, folder)
    engine = create_engine(settings.database_url)
    try:
        with unit_of_work(engine, read_only=True) as session:
            early = list_stored_files(session)
        taken = {file.name for file in early if _take(file, folder)}
        with dumps.dump(settings, folder) as (session, server, program):
            made_at = current_time(session)
            head = ":".join(str(part) for part in audit.newest(session))
            n_studies = session.scalar(sa.select(sa.func.count()).select_from(Study)) or 0
            files = list_stored_files(session)
        for name in taken - {file.name for file in files}:  # removed by policy meanwhile
            (folder / name).unlink()
        missing = sorted(
            file.name
            for file in files
            if not ((file.name in taken or _take(file, folder)) and _is_intact(file, folder))
        )
        kept = {file.name: file for file in files if file.name not in set(missing)}
        name = dumps.dump_name(settings)
        hashes |= {name: hash_of(folder / name)}
        hashes |= {name: file.sha256 for name, file in kept.items()}
        manifest = Manifest(
            format=FORMAT,
            made_at=made_at.isoformat(timespec="seconds"),
            node_version=VERSION,
            schema=migrate.head_revision(),
            database=name,
            server=server,
            program=program,
            audit_head=head,
            n_studies=n_studies,
            n_files=len(kept),
            n_bytes=sum(file.size_bytes for file in kept.values()),
            missing=missing,
            hashes_sha256=write_hashes(folder, hashes),
        )
        manifest.write(folder)
        with unit_of_work(engine) as session:
            detail = {"operator": operator, "files": len(kept), "missing": len(missing)}
            audit.append(session, "backup-made", detail={**detail, "audit_head": head})
    finally:
        engine.dispose()
    return manifest


def _require_schema(settings: Settings) -> None:
    if settings.is_sqlite and not dumps.sqlite_path(settings).exists():
        raise EpvsError(
            f"There is no database {dumps.sqlite_path(settings)}.",
            "Set EPVS_DATA_DIR or EPVS_DATABASE_URL to those of the node.",
        )
    owner_url = settings.database_owner_url or settings.database_url
    if migrate.current_revision(owner_url) != migrate.head_revision():
        raise EpvsError(
            "The database does not have the schema of this version of the node.",
            "Make the backup with the version that the node runs.",
        )


def _copy_checkpoints(settings: Settings, folder: Path) -> dict[str, str]:
    """Copy what is known of the audit trail's checkpoints; return the hashes."""
    sources = {AUDIT_STATUS: settings.audit_status_file}
    if settings.audit_checkpoints:
        sources[AUDIT_CHECKPOINTS] = Path(settings.audit_checkpoints)
    found = {name: source for name, source in sources.items() if source.is_file()}
    for name, source in found.items():
        copy_durably(source, folder / name)
    return {name: hash_of(folder / name) for name in found}


def _take(file: StoredFile, folder: Path) -> bool:
    """Link or copy a file into the backup; False if it is not there any more."""
    target = folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not file.path.is_file():
        return False
    try:
        os.link(file.path, target)
    except OSError:  # another file system, or one without links
        target.unlink(missing_ok=True)
        try:
            copy_durably(file.path, target)
        except FileNotFoundError:
            target.unlink(missing_ok=True)
            return False
    return True


def _is_intact(file: StoredFile, folder: Path) -> bool:
    """Whether the content is what was stored; if not, it is taken out of the backup."""
    target = folder / file.name
    if hash_of(target) == file.sha256:
        return True
    target.unlink()
    return False


def describe_missing(names: Iterable[str]) -> str:
    """Say which files a backup lacks, at most a few of them by name."""
    listed = list(names)
    some = ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")
    return f"{len(listed)} files that the database names are missing or damaged: {some}"
