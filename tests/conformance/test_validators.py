"""Every object of a report passes every validator, whatever its source looks like."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
import pytest

from core.errors import Reason, Rejected
from core.records import ObjectKind, Report
from tests.conformance.sources import (
    classic,
    enhanced,
    inputs,
    not_graded,
    refused,
    sample_studies,
    sample_study,
    superseding,
    without_images,
)
from tests.servers.validators import dciodvfy, dsrdump
from worker.stages.selection import select_series

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import Dataset

    from tests.servers.validators import PixelMed
    from worker.stages.report import SRClass


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
"""What is done to each header of the source; the pixels stay the same."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    made: dict[str, Report] = {}
    for name, edit in EDITS.items():
        source = inputs(classic(tmp_path_factory.mktemp(name), edit))
        made[name] = source.build(parametric_map=True)
        made[f"{name}, not graded"] = not_graded(
            source.study, refused(source.volume.series.series_uid)
        )
        made[f"{name}, not graded, 3d"] = not_graded(
            source.study, Rejected(Reason.NO_SUITABLE_SERIES), sr="comprehensive3d"
        )
    plain = inputs(classic(tmp_path_factory.mktemp("again")))
    made["3d"] = plain.build(sr="comprehensive3d", parametric_map=True)
    made["no-map"] = plain.build()
    made["superseding"] = superseding(plain, made["no-map"]).build()
    none_seen = inputs(plain.volume, ratings=(0,) * 6, p=0.02)
    made["none-seen"] = none_seen.build(sr="comprehensive3d")
    frames = inputs(enhanced(tmp_path_factory.mktemp("enhanced")))
    made["enhanced"] = frames.build(parametric_map=True)
    made["enhanced, not graded, 3d"] = not_graded(
        superseding(frames, made["enhanced"]).study,
        refused(frames.volume.series.series_uid, Reason.INCONSISTENT_MATRIX, "96×80 and 64×64"),
        sr="comprehensive3d",
    )
    made["no images, not graded"] = not_graded(
        without_images(tmp_path_factory.mktemp("no-images")), Rejected(Reason.UNREADABLE)
    )
    return made


@pytest.fixture(scope="module")
def files(
    reports: dict[str, Report], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, ObjectKind], list[Path]]:
    folder = tmp_path_factory.mktemp("objects")
    written: dict[tuple[str, ObjectKind], list[Path]] = {}
    for name, report in reports.items():
        for number, item in enumerate(report.objects):
            path = folder / f"{name}-{number}-{item.kind}.dcm"
            path.write_bytes(item.content)
            written.setdefault((name, item.kind), []).append(path)
    return written


Files = dict[tuple[str, ObjectKind], list[Path]]


def test_dciodvfy_finds_no_error_in_any_object(files: Files) -> None:
    assert {path.name: dciodvfy(path) for paths in files.values() for path in paths} == {
        path.name: [] for paths in files.values() for path in paths
    }


def test_dsrdump_reads_every_report(files: Files) -> None:
    reports = [p for (_, kind), paths in files.items() for p in paths if kind == "sr"]
    assert len(reports) == 3 * len(EDITS) + 7
    assert {path.name: dsrdump(path) for path in reports} == {path.name: [] for path in reports}


def test_pixelmed_checks_the_content_trees(files: Files, pixelmed: PixelMed) -> None:
    reports = [p for (_, kind), paths in files.items() for p in paths if kind == "sr"]
    assert {path.name: pixelmed.errors(path) for path in reports} == {p.name: [] for p in reports}


@pytest.mark.sample_data
def test_the_sample_study_makes_a_valid_report(tmp_path: Path, pixelmed: PixelMed) -> None:
    report = sample_study().build(sr="comprehensive3d", parametric_map=True)
    paths = {}
    for item in report.objects:
        paths[item.kind] = tmp_path / f"{item.kind}.dcm"
        paths[item.kind].write_bytes(item.content)
    assert {kind: dciodvfy(path) for kind, path in paths.items()} == {key: [] for key in ObjectKind}
    sr = paths[ObjectKind.STRUCTURED_REPORT]
    assert dsrdump(sr) == []
    assert pixelmed.errors(sr) == []


@pytest.mark.sample_data
@pytest.mark.timeout(300)  # forty studies, each through two validators
def test_every_sample_that_is_rejected_makes_a_valid_report(tmp_path: Path) -> None:
    faults: dict[str, list[str]] = {}
    for number, (name, study) in enumerate(sample_studies().items()):
        with pytest.raises(Rejected) as rejection:
            select_series(study)
        sr: SRClass = "comprehensive3d" if number % 2 else "comprehensive"
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(not_graded(study, rejection.value, sr=sr).objects[0].content)
        faults[name] = dciodvfy(path) + dsrdump(path)
    assert len(faults) > 30
    assert faults == {name: [] for name in faults}


@pytest.mark.parametrize("name", ["japanese", "korean", "cyrillic", "latin-1"])
def test_patient_name_and_character_set_are_those_of_the_source(
    reports: dict[str, Report], files: Files, name: str
) -> None:
    source = pydicom.Dataset()
    EDITS[name](source)
    for kind in ObjectKind:
        for path in files[name, kind] + files[f"{name}, not graded", ObjectKind.STRUCTURED_REPORT]:
            written = pydicom.dcmread(path)
            assert written.SpecificCharacterSet == source.SpecificCharacterSet
            assert str(written.PatientName) == str(source.PatientName)


def test_undeclared_latin_1_stays_readable(files: Files) -> None:
    written = pydicom.dcmread(files["undeclared", ObjectKind.STRUCTURED_REPORT][0])
    assert str(written.PatientName) == "Müller^Jörg"
    assert written.SpecificCharacterSet == "ISO_IR 100"


# --- Proof that the validators can fail ----------------------------------------------------------


@pytest.fixture
def sr(files: Files) -> Dataset:
    return pydicom.dcmread(files["plain", ObjectKind.STRUCTURED_REPORT][0])


def test_dciodvfy_misses_the_evidence(sr: Dataset, tmp_path: Path) -> None:
    del sr.CurrentRequestedProcedureEvidenceSequence
    sr.save_as(tmp_path / "bad.dcm")
    assert dciodvfy(tmp_path / "bad.dcm")


def test_dciodvfy_refuses_a_picture_without_its_type_1_attributes(
    files: Files, tmp_path: Path
) -> None:
    picture = pydicom.dcmread(files["plain", ObjectKind.SECONDARY_CAPTURE][0])
    del picture.ConversionType
    picture.save_as(tmp_path / "bad.dcm")
    assert dciodvfy(tmp_path / "bad.dcm")


def test_dsrdump_refuses_an_unknown_relationship(sr: Dataset, tmp_path: Path) -> None:
    sr.ContentSequence[0].RelationshipType = "LIKES"
    sr.save_as(tmp_path / "bad.dcm")
    assert dsrdump(tmp_path / "bad.dcm")


def test_pixelmed_refuses_a_code_outside_the_template(
    sr: Dataset, pixelmed: PixelMed, tmp_path: Path
) -> None:
    _procedure(sr).ConceptCodeSequence[0].CodeValue = "24590-2"  # not one of TID 1500's
    sr.save_as(tmp_path / "bad.dcm")
    assert pixelmed.errors(tmp_path / "bad.dcm")


def test_pixelmed_refuses_a_relationship_outside_the_template(
    sr: Dataset, pixelmed: PixelMed, tmp_path: Path
) -> None:
    _procedure(sr).RelationshipType = "HAS PROPERTIES"
    sr.save_as(tmp_path / "bad.dcm")
    assert pixelmed.errors(tmp_path / "bad.dcm")


def _procedure(sr: Dataset) -> Dataset:
    return next(i for i in sr.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "121058")


def test_pixelmed_says_so_where_it_knows_no_template_or_reads_no_file(
    sr: Dataset, pixelmed: PixelMed, tmp_path: Path
) -> None:
    """A check that looked at nothing is no pass, and the next file is checked as ever."""
    del sr.ContentTemplateSequence
    sr.ConceptNameCodeSequence[0].CodeValue = "0"
    sr.save_as(tmp_path / "unknown.dcm")
    assert pixelmed.errors(tmp_path / "unknown.dcm")
    assert pixelmed.errors(tmp_path / "missing.dcm")
