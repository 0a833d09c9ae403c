"""``epvs-node doctor``: checks of every dependency, with a remedy for each fault."""

from __future__ import annotations

import json
import math
import shlex
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy.engine import make_url

from core.certificates import validities
from core.errors import EpvsError
from core.permissions import is_private
from db import grants, migrate
from db.receiving.quarantine import list_waiting
from db.retention.forecast import Growth, read_growth
from db.session import create_engine, describe_connection, transaction, unit_of_work
from node import display
from node.check import Check
from node.components import run_module
from node.embedded.running import running_components
from node.embedded.stack import environment_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.settings import Settings
    from core.tls import Identity


_RECENTLY: Final = timedelta(days=1)
"""A process that ended within this time is shown as a warning."""
_SOON_DAYS: Final = 14
"""Before a disk is full: `doctor` warns."""


def examine(settings: Settings) -> Iterator[Check]:
    """Check folders and database here; run the worker's own checks of its peers."""
    yield _spool(settings)
    yield _permissions(settings)
    yield _callers(settings)
    if settings.tls_identity is not None:
        yield _tls(settings.tls_identity)
    yield from _database(settings)
    yield from _components(settings)
    try:
        for line in run_module("worker.commands.doctor", env=environment_of(settings)):
            yield Check(**json.loads(line))
    except EpvsError as error:
        yield Check("worker", False, str(error))


def show(checks: list[Check]) -> None:
    """Print one line per check, and the remedy below each fault."""
    for check in checks:
        display.outcome(check.ok, f"{check.name}: {check.detail}", warning=check.warning)
        if check.remedy and (check.warning or not check.ok):
            display.console.print(f"     → {check.remedy}")


def _spool(settings: Settings) -> Check:
    folder = settings.data_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    free_mb = shutil.disk_usage(folder).free // 2**20
    return Check(
        "spool",
        free_mb > settings.spool_reserve_mb and _writable(folder),
        f"{free_mb} MB free in {folder}, {settings.spool_reserve_mb} MB kept in reserve",
        "Free space, give the node's user write access, or set EPVS_DATA_DIR to a larger disk; "
        "below the reserve every C-STORE is refused with status 0xA700 and senders must retry.",
    )


def _writable(folder: Path) -> bool:
    probe = folder / ".epvs-node-write-test"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


def _permissions(settings: Settings) -> Check:
    """Check what a node before version 0.2.0, or somebody by hand, may have left readable."""
    sqlite = make_url(settings.database_url).database
    stored = [settings.data_dir.absolute()]
    if settings.database_url.startswith("sqlite") and sqlite:
        stored.append(Path(sqlite))
    opened = [str(path) for path in stored if path.exists() and not is_private(path)]
    return Check(
        "permissions",
        not opened,
        f"open to other accounts: {', '.join(opened)}"
        if opened
        else "data folder and database file are closed to other accounts",
        f"Run chmod go= {shlex.join(opened)}.",
    )


def _callers(settings: Settings) -> Check:
    rules = settings.caller_rules
    return Check(
        "callers",
        bool(rules),
        f"{len(rules)} rules admit callers" if rules else "no caller is admitted to this node",
        "Set EPVS_CALLERS, for example EPVS_CALLERS=PACS@192.0.2.10.",
    )


def _tls(identity: Identity) -> Check:
    """Check the files as they are now: running processes keep the last usable ones."""
    name = "TLS files"
    try:
        identity.server_context()
        known = validities(identity)
    except EpvsError as error:
        return Check(name, False, error.message, error.remedy)
    now = datetime.now(UTC)
    expired = [each for each in known if each.until < now]
    listed = "; ".join(
        f"{name} {'expired' if until < now else 'valid until'} {until:%Y-%m-%d %H:%M} UTC"
        for name, until in expired or known
    )
    return Check(
        name,
        not expired,
        listed,
        "Renew the files. A certificate, authority or revocation list that has expired refuses all "
        "that depends on it.",
    )


def _database(settings: Settings) -> Iterator[Check]:
    name = "database"
    try:
        current, head = migrate.current_revision(settings.database_url), migrate.head_revision()
        if current != head:
            yield Check(
                name,
                False,
                f"at revision {current or 'none'}, but {head} is required",
                "Run epvs-node migrate.",
            )
            return
        link = describe_connection(create_engine(settings.database_url))
        yield Check(name, True, f"reachable, at revision {head}, {link}")
        if not settings.is_sqlite:
            yield _database_role(settings)
        yield _quarantine(settings)
        yield _forecast(settings)
    except EpvsError as error:
        yield Check(name, False, error.message, error.remedy or "Check EPVS_DATABASE_URL.")


def _database_role(settings: Settings) -> Check:
    """Check that the node can neither change the schema nor rewrite the audit trail."""
    engine = create_engine(settings.database_url)
    try:
        with transaction(engine) as connection:
            problems = grants.find_problems(connection)
    finally:
        engine.dispose()
    return Check(
        "database role",
        not problems,
        "; ".join(problems) or "works without DDL and can only add audit events",
        "Create the roles with docker/postgres/roles.sql, set EPVS_DATABASE_OWNER_URL and run "
        "epvs-node migrate.",
    )


def _components(settings: Settings) -> Iterator[Check]:
    """Check the processes of an embedded stack that is running in the data folder."""
    now = datetime.now(UTC)
    for component in running_components(settings):
        ended = component.last_exit_at
        yield Check(
            f"process {component.name}",
            component.state != "waiting",
            str(component),
            f"The end of its log says why: {component.log}",
            warning=bool(ended) and now - datetime.fromisoformat(ended) < _RECENTLY,
        )


def _quarantine(settings: Settings) -> Check:
    """Warn of received instances that no study is graded with until an operator decides."""
    engine = create_engine(settings.database_url)
    try:
        with unit_of_work(engine, read_only=True) as session:
            rows = list_waiting(session)
    finally:
        engine.dispose()
    n_instances, n_studies = sum(r["instances"] for r in rows), len({r["study_uid"] for r in rows})
    return Check(
        "quarantine",
        True,
        f"instances that wait: {n_instances}, of studies: {n_studies}",
        "Run epvs-node quarantine list, then accept or discard them.",
        warning=bool(rows),
    )


def _forecast(settings: Settings) -> Check:
    """Say when the disk of images and reports will be full, at the rate of the last days."""
    engine = create_engine(settings.database_url)
    try:
        with unit_of_work(engine, read_only=True) as session:
            growth = read_growth(session)
    finally:
        engine.dispose()
    if growth is None:
        return Check("disk forecast", True, "studies of less than a day: too early to say")
    details, soonest = [], math.inf
    for folders, rate in _by_disk(settings, growth):
        free = shutil.disk_usage(folders[0]).free - settings.spool_reserve_mb * 2**20
        days = max(free, 0) / rate if rate > 0 else math.inf
        soonest = min(soonest, days)
        when = f"full in {days:.0f} days at this rate" if days < math.inf else "not filling"
        names = " and ".join(folder.name for folder in folders)
        details.append(f"{names} {rate / 2**20:+.0f} MB a day, {when}")
    return Check(
        "disk forecast",
        True,
        f"{'; '.join(details)} (last {growth.days:.0f} days)",
        "Add space, or let retention keep less: EPVS_KEEP_IMAGES_DAYS, EPVS_KEEP_REPORTS_DAYS; "
        "epvs-node prune --dry-run says what is due.",
        warning=soonest < _SOON_DAYS,
    )


def _by_disk(settings: Settings, growth: Growth) -> list[tuple[list[Path], float]]:
    """Group the folders by the disk that they are on; add up what each disk gains a day."""
    disks: dict[int, tuple[list[Path], float]] = {}
    for folder, rate in (
        (settings.spool_dir, growth.images),
        (settings.reports_dir, growth.reports),
    ):
        if folder.is_dir():
            folders, total = disks.get(folder.stat().st_dev, ([], 0.0))
            disks[folder.stat().st_dev] = ([*folders, folder], total + rate)
    return list(disks.values())
