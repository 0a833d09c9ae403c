"""Commands of retention: remove what is due, abandon what nobody waits for, erase a patient."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from core.settings import load_settings
from db import commands
from db.clock import current_time
from db.retention import erasure, removals
from db.retention.policy import Policy
from db.retention.pruning import count_listed, preview, prune
from db.session import create_engine, unit_of_work
from node import display
from node.database import open_database, require_schema
from node.operator import operator_name

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from db.retention.pruning import Pruned
    from db.retention.removals import Amount

_MB = 2**20


def prune_now(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is due, and remove nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove everything that is due now; the housekeeper does so in small portions."""
    settings = load_settings()
    require_schema(settings.database_url)
    engine = create_engine(settings.database_url)
    rules = Policy.of(settings)
    try:
        if dry_run:
            total = preview(engine, rules)
        else:
            total = prune(engine, rules, n_studies=_PORTION)
            portion = total
            while _is_more(portion):
                portion = prune(engine, rules, n_studies=_PORTION)
                _add(total, portion)
    finally:
        engine.dispose()
    if as_json:
        print(json.dumps(asdict(total), indent=2))
        return
    verb = "would be removed" if dry_run else "removed"
    display.print_record(
        {
            f"images {verb}": f"{_text(total.images)} of {total.studies} studies",
            f"reports {verb}": _text(total.reports),
            f"quarantine {verb}": _text(total.quarantine),
            f"rows of details {verb}": str(total.details),
            "files that wait to be removed": _text(total.waiting),
        }
    )


_PORTION = 500


def _is_more(portion: Pruned) -> bool:
    decided = portion.images + portion.reports + portion.quarantine
    return bool(decided.files or portion.details)


def _add(total: Pruned, portion: Pruned) -> None:
    total.images += portion.images
    total.studies += portion.studies
    total.reports += portion.reports
    total.quarantine += portion.quarantine
    total.details += portion.details
    total.removed += portion.removed
    total.waiting = portion.waiting


def _text(amount: Amount) -> str:
    return f"{amount.files} files, {amount.size_bytes / _MB:.1f} MB"


def abandon(
    study_uid: Annotated[str | None, typer.Argument(help="Study Instance UID.")] = None,
    destination: Annotated[
        str | None, typer.Option(help="Only parked deliveries to AE@host:port or hl7://host:port.")
    ] = None,
) -> None:
    """Accept that a failed study or parked deliveries stay so; their files may then be removed."""
    if not (study_uid or destination):
        raise typer.BadParameter("name a study, a destination or both")
    with open_database() as session:
        n = commands.abandon(
            session,
            study_uid=study_uid,
            destination=destination,
            operator=operator_name(),
            now=current_time(session),
        )
    display.step(f"{n} failed revisions and parked deliveries abandoned")


def erase(
    patient: Annotated[str | None, typer.Option(help="Patient ID.")] = None,
    issuer: Annotated[
        str | None, typer.Option(help="Issuer of Patient ID, where several use this one.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Study Instance UID.")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Erase; without it, say what would be.")
    ] = False,
) -> None:
    """Erase a patient or one study from database and disk; the audit trail keeps UIDs."""
    if bool(patient) == bool(study):
        raise typer.BadParameter("name a patient or a study")
    settings = load_settings()
    require_schema(settings.database_url)
    engine = create_engine(settings.database_owner_url or settings.database_url)
    try:
        with unit_of_work(engine, read_only=True) as session:
            found = erasure.find(session, patient_id=patient or "", issuer=issuer, study_uid=study)
        for study_uid in found.study_uids:
            display.step(f"study {study_uid}")
        for study_uid in found.quarantined_in:
            display.step(f"instances in quarantine of study {study_uid} (another patient's)")
        if not yes:
            display.step("nothing was erased: add --yes to erase this")
            return
        _erase(engine, found, patient or "", issuer)
    finally:
        engine.dispose()


def _erase(engine: Engine, found: erasure.Erasable, patient_id: str, issuer: str | None) -> None:
    operator, total = operator_name(), removals.Amount()
    with unit_of_work(engine) as session:
        erasure.require_privilege(session)
        now = current_time(session)
        for study_uid in found.study_uids:
            total += erasure.erase_study(session, study_uid, operator=operator, now=now)
        for study_uid in found.quarantined_in:
            total += erasure.erase_quarantined(
                session, study_uid, patient_id, issuer=issuer, operator=operator, now=now
            )
    erasure.checkpoint(engine)
    n_removed = sum(
        removals.remove_listed(engine, limit=total.files + 1, study_uid=study_uid).files
        for study_uid in (*found.study_uids, *found.quarantined_in)
    )
    display.step(f"erased {len(found.study_uids)} studies; {n_removed} files removed")
    with unit_of_work(engine, read_only=True) as session:
        waiting = count_listed(session)
    if waiting.files:
        display.step(f"{waiting.files} files could not be removed here: the housekeeper does it")
