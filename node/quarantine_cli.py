"""``epvs-node quarantine``: what an operator does about instances that contradict earlier ones."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from db.clock import current_time
from db.enums import QuarantineReason
from db.receiving import quarantine
from db.receiving.quarantine import Choice
from node import display
from node.database import open_database
from node.operator import operator_name

app = typer.Typer(help="Instances that contradict earlier ones.", no_args_is_help=True)

StudyUid = Annotated[str, typer.Argument(help="Study Instance UID.")]
Reason = Annotated[QuarantineReason | None, typer.Option(help="Only those with this reason.")]
Caller = Annotated[str | None, typer.Option(help="Only those from this calling AE title.")]
SopInstance = Annotated[str | None, typer.Option(help="Only the one with this SOP Instance UID.")]


@app.command(name="list")
def list_waiting(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List what waits for a decision, by study, reason, sender and patient."""
    with open_database(read_only=True) as session:
        rows = quarantine.list_waiting(session)
    if as_json:
        print(json.dumps(rows, indent=2, default=str))
    elif rows:
        display.print_table(rows, list(rows[0]))
    else:
        display.step("no instance waits in quarantine")


@app.command()
def accept(
    study_uid: StudyUid,
    reason: Reason = None,
    caller: Caller = None,
    instance: SopInstance = None,
) -> None:
    """Take instances into the study in the place of what they contradict, and grade it again."""
    choice = Choice(study_uid, reason, caller, instance)
    with open_database() as session:
        accepted = quarantine.accept(
            session, choice, operator=operator_name(), now=current_time(session)
        )
    then = "queued as" if accepted.is_queued else "to be graded as"
    display.step(
        f"{accepted.n_instances} instances accepted; {then} revision {accepted.revision_id}"
    )


@app.command()
def discard(
    study_uid: StudyUid,
    reason: Reason = None,
    caller: Caller = None,
    instance: SopInstance = None,
) -> None:
    """Leave instances out for good."""
    choice = Choice(study_uid, reason, caller, instance)
    with open_database() as session:
        n = quarantine.discard(session, choice, operator=operator_name(), now=current_time(session))
    display.step(f"{n} instances discarded; retention removes their files later")
