"""Restores a backup into an empty installation: files first, the database last."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import EpvsError
from core.version import VERSION
from db import audit, migrate
from db.session import create_engine, unit_of_work
from db.stored_files import move_stored_files
from node.backup import dumps
from node.backup.manifest import (
    AUDIT_CHECKPOINTS,
    AUDIT_STATUS,
    Manifest,
    copy_durably,
    read_hashes,
    verify,
)

if TYPE_CHECKING:
    from core.settings import Settings


def restore_backup(settings: Settings, folder: Path, *, operator: str) -> Manifest:
    """Restore a backup into the configured data folder and database, both of them empty.

    Rows name their files in the configured data folder afterwards, which may be another one than
    that of the backup.

    Parameters
    ----------
    settings : Settings
    folder : Path
    operator : str
        Who restores it, for the audit trail.

    Raises
    ------
    EpvsError
        The backup is damaged or of another version, the target is not empty, or cannot be written.
    """
    manifest = Manifest.read(folder)
    _require_same(settings, manifest)
    for target in (settings.spool_dir, settings.reports_dir):
        if target.exists() and any(target.rglob("*.dcm")):
            raise EpvsError(
                f"{target} holds files already.",
                "A backup is restored into an empty data folder only: choose another "
                "EPVS_DATA_DIR, or move the old one away.",
            )
    dumps.require_programs(settings, manifest)
    dumps.require_empty(settings)
    hashes = read_hashes(folder, manifest)
    verify(folder, hashes)
    data_dir = settings.data_dir.absolute()
    targets = {name: data_dir / name for name in hashes if name.startswith(("spool/", "reports/"))}
    if AUDIT_STATUS in hashes:
        targets[AUDIT_STATUS] = settings.audit_status_file
    if AUDIT_CHECKPOINTS in hashes and settings.audit_checkpoints:
        targets[AUDIT_CHECKPOINTS] = Path(settings.audit_checkpoints)
    try:
        for name, target in targets.items():
            if name == AUDIT_CHECKPOINTS and target.exists():
                continue  # it was kept elsewhere, and may hold later ones
            if name == AUDIT_STATUS:
                target.unlink(missing_ok=True)
            copy_durably(folder / name, target)
        os.sync()  # the names, before a row states them
        dumps.load(settings, folder)
    except OSError as error:
        raise EpvsError(
            f"The backup cannot be restored into {data_dir}: {error.strerror or error}.",
            f"Remove {settings.spool_dir} and {settings.reports_dir}, correct the cause, and run "
            "the command again.",
        ) from error
    engine = create_engine(settings.database_url)
    try:
        with unit_of_work(engine) as session:
            move_stored_files(session, data_dir)
            detail = {"operator": operator, "made_at": manifest.made_at}
            audit.append(session, "restored", detail={**detail, "audit_head": manifest.audit_head})
    finally:
        engine.dispose()
    return manifest


def _require_same(settings: Settings, manifest: Manifest) -> None:
    """Check that the backup is of this version's schema and this kind of database."""
    if manifest.schema != migrate.head_revision():
        newer = migrate.is_newer(manifest.schema)
        then = "." if newer else ", then upgrade the node and run 'epvs-node migrate'."
        raise EpvsError(
            f"The backup is of epvs-node {manifest.node_version} (schema {manifest.schema}); this "
            f"is {VERSION} (schema {migrate.head_revision()}).",
            f"Restore it with version {manifest.node_version}{then}",
        )
    if manifest.database != dumps.dump_name(settings):
        raise EpvsError(
            f"The backup is of {manifest.server}, and EPVS_DATABASE_URL names another kind of "
            "database.",
            "Restore it into a database of the same kind.",
        )
