"""Sources of the reports that are validated: every unusual header known from practice."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from core.reasons import Reason
from core.results import NotGradedStudy, SRClass
from tests.support.builders.sources import (
    classic,
    enhanced,
    inputs,
    not_graded,
    refused,
    superseding,
    without_images,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom.dataset import Dataset

    from core.results import Report


def _bare(ds: Dataset) -> None:
    for keyword in (
        "SpecificCharacterSet",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "StudyID",
        "ReferringPhysicianName",
        "StudyDescription",
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "SliceThickness",
        "SpacingBetweenSlices",
        "FrameOfReferenceUID",
    ):
        del ds[keyword]


def _odd(ds: Dataset) -> None:
    ds.PatientSex = "U"
    ds.StudyDate, ds.PatientBirthDate, ds.StudyTime = "2026.3.2", "***", "10:15"
    ds.StudyDescription = "MR BRAIN WITH A DESCRIPTION FAR LONGER THAN THE 64 CHARACTERS OF ITS VR"
    ds.PatientIdentityRemoved = "YES"  # without the method that must then be stated
    ds.TimezoneOffsetFromUTC = "+0900"


def _name(ds: Dataset, *, character_set: str | list[str], name: str | bytes) -> None:
    ds.SpecificCharacterSet, ds.PatientName, ds.PatientSex = character_set, name, ""


EDITS: dict[str, Callable[[Dataset], None]] = {
    "plain": lambda ds: None,
    "bare": _bare,
    "odd": _odd,
    "japanese": partial(
        _name, character_set=["", "ISO 2022 IR 87"], name="Yamada^Tarou=山田^太郎=やまだ^たろう"
    ),
    "korean": partial(
        _name, character_set=["", "ISO 2022 IR 149"], name="Hong^Gildong=洪^吉洞=홍^길동"
    ),
    "cyrillic": partial(_name, character_set="ISO_IR 144", name="Люкceмбypг"),
    "latin-1": partial(_name, character_set="ISO_IR 100", name="Müller^Jörg"),
    "undeclared": partial(_name, character_set="", name=b"M\xfcller^J\xf6rg"),
    "unknown-set": partial(_name, character_set="ISO_IR 999", name="Canary^Patient"),
}
"""Changes to each header of the source; the pixels stay the same."""


def build_reports(folder: Path) -> dict[str, Report]:
    """Write every source below `folder` and build its reports."""

    def new(name: str) -> Path:
        (folder / name).mkdir()
        return folder / name

    made: dict[str, Report] = {}
    for name, edit in EDITS.items():
        source = inputs(classic(new(name), edit))
        made[name] = source.build(parametric_map=True)
        made[f"{name}, not graded"] = not_graded(
            source.study, refused(source.volume.series.series_uid)
        )
        made[f"{name}, not graded, 3d"] = not_graded(
            source.study,
            NotGradedStudy("r", Reason.NO_SUITABLE_SERIES, ""),
            SRClass.COMPREHENSIVE_3D,
        )
    plain = inputs(classic(new("again")))
    made["3d"] = plain.build(SRClass.COMPREHENSIVE_3D, parametric_map=True)
    made["no-map"] = plain.build()
    made["superseding"] = superseding(plain, made["no-map"]).build()
    none_seen = inputs(plain.volume, ratings=(0,) * 6, p=0.02)
    made["none-seen"] = none_seen.build(SRClass.COMPREHENSIVE_3D)
    frames = inputs(enhanced(new("enhanced")))
    made["enhanced"] = frames.build(parametric_map=True)
    made["enhanced, not graded, 3d"] = not_graded(
        superseding(frames, made["enhanced"]).study,
        refused(frames.volume.series.series_uid, Reason.INCONSISTENT_MATRIX, "96×80 and 64×64"),
        SRClass.COMPREHENSIVE_3D,
    )
    made["no images, not graded"] = not_graded(
        without_images(new("no-images")), NotGradedStudy("r", Reason.UNREADABLE, "")
    )
    return made
