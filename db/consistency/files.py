"""Rows and files: every row has its file, every file its row, nothing half written is left.

A row whose file retention has removed names none; a file that is listed for removal has its row.

Nothing is changed or locked. Transactions are short: files are read outside them, because
PostgreSQL ends a transaction that is idle for 10 s.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections import defaultdict
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select, union_all

from db.consistency.verdict import Invariant, Verdict
from db.models import FileRemoval, Instance, QuarantinedInstance, ReportObjectRow
from db.session import unit_of_work
from db.stored_files import TABLES, is_kept

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Engine

    from core.settings import Settings

_KEYS: Final[dict[Any, Any]] = {
    Instance: Instance.sop_instance_uid,
    QuarantinedInstance: QuarantinedInstance.id,
    ReportObjectRow: ReportObjectRow.id,
}
"""Primary keys of the tables that name files."""
_PAGE: Final = 1000
"""Rows read in one transaction before their files are."""


def check_files(
    engine: Engine, settings: Settings, *, in_flight_s: float, hashed: int | None
) -> Iterator[Verdict]:
    """Compare the rows of all tables that name files with spool and reports.

    Parameters
    ----------
    engine : Engine
    settings : Settings
        Its folders are looked at.
    in_flight_s : float
        Files that were written within this time may be without a row: a transfer or an attempt is
        in progress.
    hashed : int, optional
        About how many files, chosen at random, are read to compare their SHA-256; None reads all.
        Existence and size are compared for every file.

    Raises
    ------
    Unavailable
        The database does not respond.
    """
    before = time.time() - in_flight_s
    checked, missing, orphans = _compare_names(engine, settings, before)
    n_read, damaged = _compare_contents(engine, 1.0 if hashed is None else hashed / max(1, checked))
    yield Verdict.of(
        Invariant.STORED_FILES, checked, [*missing, *damaged], f"{n_read} of them were read"
    )
    yield Verdict.of(Invariant.ORPHAN_FILES, checked, orphans)
    temporary = list(_list_temporary(settings, before))
    yield Verdict.of(Invariant.TEMPORARY_FILES, len(temporary), temporary)


def _compare_names(
    engine: Engine, settings: Settings, before: float
) -> tuple[int, list[str], list[str]]:
    """Return the number of rows, the rows without their file, and the files without a row."""
    reports: dict[str, list[Path]] = defaultdict(list)
    for path in _old_files(settings.reports_dir, before):
        reports[path.name[:2]].append(path)
    parts = [
        select(
            table.sha256.label("sha256"), table.path, table.size_bytes, table.sop_instance_uid
        ).where(is_kept(table))
        for table in TABLES
    ]
    query = union_all(*parts).order_by("sha256").execution_options(yield_per=_PAGE)
    checked = 0
    problems: list[tuple[str, str]] = []
    candidates: list[Path] = []
    with unit_of_work(engine, read_only=True) as session:
        for prefix, rows in _by_prefix(session.execute(query)):
            known = set()
            for sha256, path, size_bytes, uid in rows:
                checked += 1
                known.add(f"{sha256}.dcm")
                if problem := _find_problem(path, size_bytes):
                    problems.append((sha256, f"instance {uid}: {problem}"))
            files = [*_old_files(settings.spool_dir / prefix, before), *reports[prefix]]
            candidates += [path for path in files if path.name not in known]
    # Rows and files may have come and gone meanwhile.
    kept = _find_kept(engine, [sha256 for sha256, _ in problems])
    missing = [problem for sha256, problem in problems if sha256 in kept]
    orphans = _without_row(engine, candidates)
    return checked, missing, [str(path.relative_to(settings.data_dir)) for path in orphans]


def _by_prefix(rows: Iterable[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the rows, sorted by SHA-256, for each of its 256 first bytes: one shard at a time."""
    groups = groupby(rows, key=lambda row: row.sha256[:2])
    prefix, group = next(groups, ("", iter(())))
    for number in range(256):
        if prefix == f"{number:02x}":
            yield prefix, list(group)
            prefix, group = next(groups, ("", iter(())))
        else:
            yield f"{number:02x}", []


def _old_files(folder: Path, before: float) -> Iterator[Path]:
    """Complete files of a folder that were last written before a time."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".dcm") and _written_before(entry.path, before):
                yield Path(entry.path)


def _written_before(path: str | Path, before: float) -> bool:
    try:
        return os.stat(path).st_mtime <= before  # noqa: PTH116 - millions of files
    except FileNotFoundError:
        return False


def _find_problem(path: str, size_bytes: int) -> str:
    try:
        size = os.stat(path).st_size  # noqa: PTH116 - as above
    except OSError as error:
        return f"file {Path(path).name}: {error.strerror}"
    return "" if size == size_bytes else f"file {Path(path).name} has {size} bytes"


def _without_row(engine: Engine, candidates: list[Path]) -> list[Path]:
    """Those of the files that still exist, have no row now, and are not about to be removed."""
    if not candidates:
        return []
    known = _find_kept(engine, [path.stem for path in candidates])
    with unit_of_work(engine, read_only=True) as session:
        known.update(Path(path).stem for path in session.scalars(select(FileRemoval.path)))
    return [path for path in candidates if path.stem not in known and path.exists()]


def _find_kept(engine: Engine, hashes: list[str]) -> set[str]:
    """Those of the hashes that a row names whose file is to be kept."""
    found: set[str] = set()
    for start in range(0, len(hashes), _PAGE):
        some = hashes[start : start + _PAGE]
        with unit_of_work(engine, read_only=True) as session:
            for table in TABLES:
                rows = select(table.sha256).where(table.sha256.in_(some), is_kept(table))
                found.update(session.scalars(rows))
    return found


def _compare_contents(engine: Engine, share: float) -> tuple[int, list[str]]:
    """Read a share of the files; return how many, and which are not what their row says."""
    n_read, damaged = 0, []
    for table, key in _KEYS.items():
        query = select(key, table.path, table.sha256, table.sop_instance_uid)
        query = query.where(is_kept(table)).order_by(key)
        last = None
        while True:
            page = query if last is None else query.where(key > last)
            with unit_of_work(engine, read_only=True) as session:
                rows = session.execute(page.limit(_PAGE)).all()
            for _, path, sha256, uid in rows:
                if random.random() >= share:
                    continue
                with suppress(OSError), Path(path).open("rb") as file:  # missing: named already
                    n_read += 1
                    if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                        damaged.append(f"instance {uid}: content of file {Path(path).name} changed")
            if len(rows) < _PAGE:
                break
            last = rows[-1][0]
    return n_read, damaged


def _list_temporary(settings: Settings, before: float) -> Iterator[str]:
    """Half-written files that nobody has written to for long."""
    half_written = [
        *settings.spool_dir.glob("tmp/*/*"),
        *settings.reports_dir.glob("*.part"),
    ]
    for path in half_written:
        if _written_before(path, before):
            yield str(path.relative_to(settings.data_dir))
