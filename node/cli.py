"""``epvs-node``: the operator's command line.

Exit codes: 0 success, 1 the command failed, 2 the command line is invalid. Operators never see a
traceback: an unexpected error is written to a file, and the message names that file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy.engine import make_url

from core.destinations import parse_dicom_destination
from core.errors import EpvsError
from core.permissions import keep_files_private
from core.settings import load_settings
from core.text import printable, printable_lines
from core.version import VERSION
from db import commands, migrate, queries
from db.clock import current_time
from db.enums import RevisionState
from db.receiving.quarantine import list_waiting
from node import audit_cli, display, doctor, models_cli, quarantine_cli, retention_cli, sending
from node.backup.making import describe_missing, make_backup
from node.backup.restoring import restore_backup
from node.database import open_database, wait_for_schema
from node.deep import READ_FILES, examine
from node.demonstration import run as demonstration
from node.embedded.running import require_not_running, with_running_stack
from node.embedded.stack import EmbeddedStack, embedded_settings
from node.machine import report as machine_report
from node.operator import operator_name

app = typer.Typer(
    name="epvs-node",
    help="DICOM node that grades enlarged perivascular spaces on brain MRI.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(audit_cli.app, name="audit")
app.add_typer(models_cli.app, name="models")
app.add_typer(quarantine_cli.app, name="quarantine")
app.command(name="prune")(retention_cli.prune_now)
app.command()(retention_cli.abandon)
app.command()(retention_cli.erase)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
StudyUid = Annotated[str, typer.Argument(help="Study Instance UID.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        display.console.print(f"epvs-node {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """DICOM node that grades enlarged perivascular spaces on brain MRI."""


@app.command()
def demo(
    study: Annotated[
        Path | None,
        typer.Argument(help="Folder of DICOM files to send instead of the sample study."),
    ] = None,
    work_dir: Annotated[Path, typer.Option(help="Working folder, emptied first.")] = Path(
        "data/demo"
    ),
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Generate a synthetic study and send that.")
    ] = False,
) -> None:
    """Grade one study end to end on this machine and show the results."""
    demonstration.run(work_dir, study=study, synthetic=synthetic)


@app.command()
def up() -> None:
    """Run the whole node on this machine until Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # during the start: like Ctrl-C
    settings = embedded_settings(load_settings())
    with EmbeddedStack(settings, on_progress=display.step) as stack:
        display.heading("epvs-node is running")
        display.print_record(
            {
                "send studies to": f"{settings.ae_title}@{settings.host}:{settings.port}",
                "results are sent to": settings.destinations
                or "nowhere: set EPVS_DESTINATIONS=AE@host:port",
                "database": make_url(settings.database_url).render_as_string(hide_password=True),
                "logs": str(stack.log_dir),
                "stop": "Ctrl-C",
            }
        )
        stack.run_until_interrupted()


@app.command(name="doctor")
def check_everything(
    as_json: AsJson = False,
    machine: Annotated[
        bool,
        typer.Option(
            "--machine",
            help="Before anything is set up: which profiles this machine can run. "
            "Run it in a clone of the repository.",
        ),
    ] = False,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Whether rows, files, audit trail and processes agree. Changes nothing; may be "
            "run beside a working node.",
        ),
    ] = False,
    all_files: Annotated[
        bool,
        typer.Option(
            "--all-files",
            help=f"With --deep: read every stored file, not a sample of {READ_FILES}.",
        ),
    ] = False,
) -> None:
    """Check every dependency and show a remedy for each fault."""
    if all_files and not deep:
        raise typer.BadParameter("--all-files needs --deep")
    if machine:
        report = machine_report.examine(Path.cwd())
        print(report.as_json() if as_json else report.as_text())
        raise typer.Exit(not report.can_run)
    settings = with_running_stack(load_settings())
    checks = list(examine(settings, read_all=all_files) if deep else doctor.examine(settings))
    if as_json:
        print(json.dumps([check.as_dict() for check in checks], indent=2))
    else:
        doctor.show(checks)
        if not settings.data_dir.exists():
            display.step("nothing was started here yet: see also epvs-node doctor --machine")
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@app.command()
def send(
    paths: Annotated[list[Path], typer.Argument(help="DICOM Part 10 files, or folders of them.")],
    to: Annotated[
        str | None, typer.Option(help="Destination AE@host:port; by default this node.")
    ] = None,
) -> None:
    """Send DICOM files by C-STORE."""
    settings = with_running_stack(load_settings())
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104
    target = to or f"{settings.ae_title}@{host}:{settings.port}"
    try:
        parse_dicom_destination(target)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    sent = sending.send(paths, target)
    display.step(f"{sent} instances stored by {target}")


@app.command()
def studies(
    status: Annotated[
        RevisionState | None, typer.Option(help="List only studies in this state.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List studies with their state and grade."""
    with open_database() as session:
        rows = queries.list_studies(session, status.value if status else None)
    if as_json:
        print(json.dumps(rows, indent=2, default=str))
        return
    if not rows:
        display.step(f"no study in state {status}" if status else "no study received yet")
        return
    columns = ["study_uid", "study_date", "status", "rating", "severity", "reason", "delivered_at"]
    display.print_table(rows, columns)
    display.print_caveats(rows)


@app.command()
def show(study_uid: StudyUid, as_json: AsJson = False) -> None:
    """Show one study: grade, series selection with reasons, deliveries, audit trail."""
    with open_database() as session:
        study = queries.show_study(session, study_uid)
        study["quarantine"] = list_waiting(session, study_uid)
    if as_json:
        print(json.dumps(study, indent=2, default=str))
        return
    _print_study(study)
    display.print_caveats(revision["grade"] for revision in study["revisions"])


@app.command()
def reprocess(study_uid: StudyUid) -> None:
    """Grade a study again, as a new revision, with the models that are served now."""
    with open_database() as session:
        revision_id = commands.reprocess(session, study_uid, now=current_time(session))
    display.step(f"queued as revision {revision_id}")


@app.command()
def redeliver(
    destination: Annotated[
        str | None, typer.Argument(help="AE@host:port or hl7://host:port; by default all.")
    ] = None,
) -> None:
    """Retry parked deliveries: the same objects to the same destinations."""
    with open_database() as session:
        count = commands.rearm_deliveries(session, destination, now=current_time(session))
    display.step(f"{count} deliveries will be retried")


@app.command(name="migrate")
def apply_migrations(
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Change nothing: wait until the database has been upgraded."),
    ] = False,
) -> None:
    """Upgrade the database to the latest schema."""
    settings = load_settings()
    if wait:
        wait_for_schema(settings.database_url, on_wait=display.step)
        return
    if settings.is_sqlite:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    owner_url = settings.database_owner_url or settings.database_url
    migrate.upgrade(owner_url, runtime_url=settings.database_url)
    display.step(f"database is at revision {migrate.head_revision()}")


@app.command(name="backup")
def back_up(
    folder: Annotated[Path, typer.Argument(help="New folder of the backup.")],
) -> None:
    """Back up database, received files, reports and audit checkpoints, while the node works."""
    manifest = make_backup(load_settings(), folder, operator=operator_name())
    display.step(
        f"{manifest.n_studies} studies, {manifest.n_files} files, {manifest.n_bytes / 1e6:.1f} MB "
        f"in {folder}"
    )
    display.step(f"newest audit event: {manifest.audit_head}")
    if manifest.missing:
        raise EpvsError(
            f"{describe_missing(manifest.missing)}.",
            "Everything else is in the backup. If an earlier backup has them, copy them from there "
            "into the data folder.",
        )


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="Folder of the backup.")],
) -> None:
    """Restore a backup into an empty installation, before the node is started."""
    settings = load_settings()
    require_not_running(settings)
    manifest = restore_backup(settings, folder, operator=operator_name())
    display.step(
        f"{manifest.n_studies} studies and {manifest.n_files} files of {manifest.made_at} restored"
    )
    if manifest.missing:
        display.step(describe_missing(manifest.missing))
    display.step(f"check it: epvs-node audit verify --head {manifest.audit_head}")


def _print_study(study: dict[str, Any]) -> None:
    display.heading("study")
    display.print_record(study["study"])
    for revision in study["revisions"]:
        display.heading(f"revision {revision['number']}: {revision['state']}")
        tables = {name: value for name, value in revision.items() if isinstance(value, list)}
        display.print_record(
            {
                n: v
                for n, v in revision.items()
                if n not in tables and n != "grade" and v is not None
            }
        )
        if revision["grade"]:
            display.heading("grade")
            display.print_record(revision["grade"])
        for name, rows in tables.items():
            hidden = ("revision_id", "position")
            if rows:
                columns = [column for column in rows[0] if column not in hidden]
                display.print_table(rows, columns, title=name.replace("_", " "))
    if study["quarantine"]:
        display.heading("quarantine")
        columns = [column for column in study["quarantine"][0] if column != "study_uid"]
        display.print_table(study["quarantine"], columns)
    display.heading("audit trail")
    display.print_events(study["events"])


def main() -> None:
    """Run the command line; report every failure as a message and an exit code."""
    keep_files_private()
    for argument in sys.argv[1:]:  # before Typer, which would print it as it is
        if printable(argument, len(argument)) != argument:
            display.error(f"Control characters in the argument {argument}; type it by hand.")
            sys.exit(2)
    try:
        app()
    except EpvsError as error:
        display.error(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - operators never see a traceback
        # A new file under a random name, because the text may quote patient data. In the data
        # folder it outlives a container.
        data_dir = os.environ.get("EPVS_DATA_DIR", "")
        folder = data_dir if data_dir and os.access(data_dir, os.W_OK) else None
        descriptor, path = tempfile.mkstemp(".txt", "epvs-node-crash-", folder)
        with os.fdopen(descriptor, "w") as file:
            file.write(printable_lines(traceback.format_exc()))
        display.error(
            f"unexpected {type(error).__name__}; details are in {path}. "
            "Please report it, after checking that the file contains nothing confidential."
        )
        sys.exit(1)
