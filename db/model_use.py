"""Which version of each model is reported, and which is graded in shadow.

The table only grows: the newest row of a model and role holds. Each change writes its audit event
in the same transaction. Versions are checked (origin, files, self-test) before they get here.

==============  ===========================================  ==================================
command         reported                                     shadow
==============  ===========================================  ==================================
first worker    none → highest version in the folder
promote         any → another version                        ends, if it was that version
rollback        → the version reported before                ends, if it was that version
shadow                                                       none or any → another version
end-shadow                                                   any → none
==============  ===========================================  ==================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from core.errors import EpvsError
from db import audit
from db.enums import ModelRole
from db.models import GradeRow, ModelAssignment, ModelVersion, Revision, ShadowGrade
from db.session import insert_or_ignore

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy.orm import Session


def read_versions(session: Session, role: ModelRole) -> dict[str, str]:
    """Return the version that has a role, by model; without the models of which none has it."""
    newest = (
        select(ModelAssignment.model, func.max(ModelAssignment.number).label("number"))
        .where(ModelAssignment.role == role)
        .group_by(ModelAssignment.model)
        .subquery()
    )
    rows = session.execute(
        select(ModelAssignment.model, ModelAssignment.version)
        .join(
            newest,
            (newest.c.model == ModelAssignment.model) & (newest.c.number == ModelAssignment.number),
        )
        .where(ModelAssignment.role == role, ModelAssignment.version.is_not(None))
    )
    return {row.model: row.version for row in rows}


def find_assignment(session: Session, model: str, role: ModelRole) -> ModelAssignment | None:
    """Return the newest row of a model and role; its version is None where a shadow has ended."""
    return session.scalar(
        select(ModelAssignment)
        .where(ModelAssignment.model == model, ModelAssignment.role == role)
        .order_by(ModelAssignment.number.desc())
        .limit(1)
    )


def record_first(session: Session, versions: Mapping[str, str], *, now: datetime) -> None:
    """Record the versions that the first worker reports, where nobody has decided yet.

    Another worker may have done so in the meantime; its choice stays.
    """
    for model, version in versions.items():
        row = insert_or_ignore(session, ModelAssignment).values(
            model=model, role=ModelRole.REPORTED, number=1, version=version, since=now, operator=""
        )
        if session.scalar(row.returning(ModelAssignment.number)) is not None:
            detail = {"model": model, "version": version, "reason": "first-worker"}
            audit.append(session, "model-promoted", detail=detail, now=now)


def promote(
    session: Session,
    model: str,
    version: str,
    facts: Mapping[str, str],
    *,
    operator: str,
    now: datetime,
) -> None:
    """Let a version be reported from the next attempt on.

    Parameters
    ----------
    session : Session
    model, version : str
    facts : mapping
        Digests of the version, for the audit trail.
    operator : str
    now : datetime

    Raises
    ------
    EpvsError
        It is reported already, or somebody else has just decided.
    """
    before = find_assignment(session, model, ModelRole.REPORTED)
    if before is not None and before.version == version:
        raise EpvsError(f"Version {version} of {model} is reported already.")
    _assign(
        session,
        model,
        ModelRole.REPORTED,
        version,
        before,
        back_to=before.number if before else None,
        operator=operator,
        now=now,
    )
    detail = {"before": before.version if before else None, **facts}
    _record(session, "model-promoted", model, version, operator, detail, now)
    _end_shadow_of(session, model, version, operator=operator, now=now)


def find_rollback(session: Session, model: str) -> str:
    """Return the version to which a rollback would go.

    Raises
    ------
    EpvsError
        No version was reported before.
    """
    return _rollback_target(session, model)[1].version or ""


def rollback(
    session: Session,
    model: str,
    version: str,
    facts: Mapping[str, str],
    *,
    operator: str,
    now: datetime,
) -> None:
    """Let the version that was reported before be reported again, from the next attempt on.

    A second rollback goes back one further: promotions are undone in reverse order.

    Parameters
    ----------
    session : Session
    model : str
    version : str
        As `find_rollback` returned it.
    facts : mapping
        Digests of the version, for the audit trail.
    operator : str
    now : datetime

    Raises
    ------
    EpvsError
        Somebody else has decided in the meantime.
    """
    before, target = _rollback_target(session, model)
    if target.version != version:
        raise _decided_meanwhile(model)
    _assign(
        session,
        model,
        ModelRole.REPORTED,
        version,
        before,
        back_to=target.back_to,
        operator=operator,
        now=now,
    )
    detail = {"before": before.version, **facts}
    _record(session, "model-rolled-back", model, version, operator, detail, now)
    _end_shadow_of(session, model, version, operator=operator, now=now)


def shadow(
    session: Session,
    model: str,
    version: str,
    facts: Mapping[str, str],
    *,
    operator: str,
    now: datetime,
) -> None:
    """Let a version grade in shadow, from the next attempt on; parameters as for `promote`.

    Raises
    ------
    EpvsError
        It is the reported version or the shadow already, or somebody else has just decided.
    """
    reported = find_assignment(session, model, ModelRole.REPORTED)
    before = find_assignment(session, model, ModelRole.SHADOW)
    for known, role in ((reported, "reported"), (before, "graded in shadow")):
        if known is not None and known.version == version:
            raise EpvsError(f"Version {version} of {model} is {role} already.")
    _assign(session, model, ModelRole.SHADOW, version, before, operator=operator, now=now)
    detail = {"before": before.version if before else None, **facts}
    _record(session, "model-shadowed", model, version, operator, detail, now)


def end_shadow(session: Session, model: str, *, operator: str, now: datetime) -> str:
    """Let no version of a model grade in shadow; return the version that did.

    Raises
    ------
    EpvsError
        None does.
    """
    before = find_assignment(session, model, ModelRole.SHADOW)
    if before is None or before.version is None:
        raise EpvsError(f"No version of {model} grades in shadow.")
    _assign(session, model, ModelRole.SHADOW, None, before, operator=operator, now=now)
    _record(session, "model-shadow-ended", model, before.version, operator, {}, now)
    return before.version


def count_studies(session: Session) -> dict[tuple[str, str], tuple[int, int]]:
    """Count the studies graded by each version, by (model, version): reported, in shadow."""
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    n_studies = func.count(Revision.study_uid.distinct())
    for key in (GradeRow.rating_model_id, GradeRow.severity_model_id):
        rows = session.execute(
            select(ModelVersion.name, ModelVersion.version, n_studies)
            .join(GradeRow, key == ModelVersion.id)
            .join(Revision, Revision.id == GradeRow.revision_id)
            .group_by(ModelVersion.name, ModelVersion.version)
        )
        counts |= {(name, version): (n, 0) for name, version, n in rows}
    rows = session.execute(
        select(ShadowGrade.model, ShadowGrade.version, n_studies)
        .join(Revision, Revision.id == ShadowGrade.revision_id)
        .where(ShadowGrade.failure.is_(None))
        .group_by(ShadowGrade.model, ShadowGrade.version)
    )
    for name, version, n in rows:
        counts[name, version] = (counts.get((name, version), (0, 0))[0], n)
    return counts


def _rollback_target(session: Session, model: str) -> tuple[ModelAssignment, ModelAssignment]:
    """Return the row that holds and the row to go back to."""
    now_reported = find_assignment(session, model, ModelRole.REPORTED)
    if now_reported is None or now_reported.back_to is None:
        raise EpvsError(
            f"No version of {model} was reported before the present one.",
            "'epvs-node models list' shows the versions; promote one.",
        )
    key = (model, ModelRole.REPORTED, now_reported.back_to)
    return now_reported, session.get_one(ModelAssignment, key)


def _assign(
    session: Session,
    model: str,
    role: ModelRole,
    version: str | None,
    before: ModelAssignment | None,
    *,
    back_to: int | None = None,
    operator: str,
    now: datetime,
) -> None:
    number = before.number + 1 if before else 1
    row = insert_or_ignore(session, ModelAssignment).values(
        model=model,
        role=role,
        number=number,
        version=version,
        back_to=back_to,
        since=now,
        operator=operator,
    )
    if session.scalar(row.returning(ModelAssignment.number)) is None:
        raise _decided_meanwhile(model)


def _end_shadow_of(
    session: Session, model: str, version: str, *, operator: str, now: datetime
) -> None:
    """End the shadow of a version that is now reported."""
    before = find_assignment(session, model, ModelRole.SHADOW)
    if before is not None and before.version == version:
        end_shadow(session, model, operator=operator, now=now)


def _record(
    session: Session,
    event: str,
    model: str,
    version: str,
    operator: str,
    detail: Mapping[str, Any],
    now: datetime,
) -> None:
    known = {"model": model, "version": version, "operator": operator}
    audit.append(session, event, detail={**known, **detail}, now=now)


def _decided_meanwhile(model: str) -> EpvsError:
    return EpvsError(
        f"Somebody else has just decided about {model}.", "Look at 'epvs-node models list'."
    )
