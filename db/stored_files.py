"""Files that rows name: received instances, those in quarantine, and objects of reports.

A file is named by its SHA-256, so the row alone says where in a data folder it lies. Rows whose
file retention has removed, or is about to, name none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from db.models import FileRemoval, Instance, QuarantinedInstance, ReportObjectRow, Revision

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

TABLES: Final[tuple[Any, ...]] = (Instance, QuarantinedInstance, ReportObjectRow)
"""The tables whose rows name files."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as its row describes it.

    Attributes
    ----------
    path : Path
        Where it is.
    sha256 : str
        Of the whole file, hexadecimal.
    size_bytes : int
    name : str
        Its place in any data folder, e.g. ``spool/ab/ab12….dcm``.
    """

    path: Path
    sha256: str
    size_bytes: int
    name: str


def is_kept(table: Any) -> ColumnElement[bool]:
    """Condition for the rows of one of `TABLES` whose file must exist."""
    if table is not ReportObjectRow:
        kept: ColumnElement[bool] = table.removed_at.is_(None)
        return kept
    return sa.exists().where(
        Revision.id == ReportObjectRow.revision_id, Revision.report_removed_at.is_(None)
    )


def list_stored_files(session: Session) -> list[StoredFile]:
    """Return every file that a row names, each once, by name."""
    found: dict[str, StoredFile] = {}
    for table in TABLES:
        columns = sa.select(table.path, table.sha256, table.size_bytes)
        rows = session.execute(columns.where(is_kept(table)))
        for path, sha256, size_bytes in rows:
            name = f"{sha256}.dcm"
            folder = "reports" if table is ReportObjectRow else f"spool/{sha256[:2]}"
            file = StoredFile(Path(path), sha256, size_bytes, f"{folder}/{name}")
            found.setdefault(file.name, file)
    return [found[name] for name in sorted(found)]


def move_stored_files(session: Session, data_dir: Path) -> None:
    """Let every row name its file in `data_dir`, where the files that are kept have been put.

    Parameters
    ----------
    session : Session
    data_dir : Path
        Absolute.
    """
    session.execute(sa.delete(FileRemoval))  # none of those was put there
    for table in TABLES:
        folder: Any = sa.literal(f"{data_dir}/reports/")
        if table is not ReportObjectRow:
            folder = sa.literal(f"{data_dir}/spool/") + sa.func.substr(table.sha256, 1, 2) + "/"
        moved = sa.update(table).values(path=folder + table.sha256 + ".dcm")
        session.execute(moved.execution_options(synchronize_session=False))
