"""``epvs-node audit``: verify the audit trail; make the key that signs its checkpoints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

import typer

from core import audit_checkpoints
from core.errors import EpvsError
from core.settings import Settings, load_settings
from db import audit
from db.audit import KnownEvent
from node import display
from node.database import open_database

app = typer.Typer(help="The append-only audit trail.", no_args_is_help=True)

_HEAD: Final = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})")


@app.command()
def verify(
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="File of signed checkpoints; by default EPVS_AUDIT_CHECKPOINTS."),
    ] = None,
    public_key: Annotated[
        list[Path] | None,
        typer.Option(
            help="Public key of the checkpoints; may be given again. "
            "By default the one beside EPVS_AUDIT_KEY."
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="SEQ:HASH", help="An event that was noted earlier."),
    ] = None,
) -> None:
    """Check that no audit event was changed or removed."""
    known = _read_known(load_settings(), checkpoints, public_key or [])
    if head is not None:
        known.append(_parse_head(head))
    with open_database(read_only=True) as session:
        verdict = audit.verify(session, known)
        seq, event_hash = audit.newest(session) if verdict.ok else (0, "")
    if not verdict.ok:
        raise EpvsError(
            f"The audit trail is broken at event {verdict.first_bad}: {verdict.problem}.",
            "Do not change the database; compare it with a backup.",
        )
    display.step(f"{verdict.checked} audit events, chain intact")
    display.step(f"newest event: {seq}:{event_hash}")
    covered = max((event.seq for event in known), default=0)
    if known:
        display.step(f"it holds the {len(known)} events known from elsewhere")
    display.step(
        f"events {covered + 1} to {seq}: the owner of the database could have rewritten them"
        if covered < seq
        else "every event is covered by a checkpoint"
    )


@app.command()
def keygen(
    path: Annotated[Path, typer.Argument(help="File of the private key; PATH.pub is the other.")],
) -> None:
    """Make the key that signs checkpoints of the audit trail."""
    key_id = audit_checkpoints.generate_key(path)
    display.step(f"private key {path}: for the housekeeper alone, as EPVS_AUDIT_KEY")
    display.step(
        f"public key {audit_checkpoints.public_key_path(path)} ({key_id}): "
        "keep copies where the node's administrators cannot change them"
    )


def _read_known(settings: Settings, path: Path | None, keys: list[Path]) -> list[KnownEvent]:
    """Return the events in the checkpoints, whose signatures must be valid."""
    if path is None:
        if not settings.audit_checkpoints:
            return []
        path = Path(settings.audit_checkpoints)
    if not keys:
        if not settings.audit_key:
            raise EpvsError("The public key is missing.", "Give it with --public-key FILE.")
        keys = [audit_checkpoints.public_key_path(Path(settings.audit_key))]
    public = [audit_checkpoints.load_public_key(key) for key in keys]
    known = []
    for checkpoint in audit_checkpoints.read_checkpoints(path):
        problem = audit_checkpoints.find_problem(checkpoint, public)
        if problem:
            raise EpvsError(
                f"The checkpoint of event {checkpoint.seq} in {path} {problem}.",
                "Give the public key of every key that was used, or compare with another copy.",
            )
        source = f"the checkpoint of {checkpoint.at}"
        known.append(KnownEvent(checkpoint.seq, checkpoint.hash, source))
    return known


def _parse_head(text: str) -> KnownEvent:
    found = _HEAD.fullmatch(text)
    if found is None:
        raise typer.BadParameter("must be SEQ:HASH, as this command prints it", param_hint="--head")
    return KnownEvent(int(found[1]), found[2], "the given head")
