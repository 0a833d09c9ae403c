"""Every object of a report passes every validator for every kind of source.

`test_transfer_syntaxes.py` does the same for how the source is encoded, and
`test_negative_controls.py` proves that the validators can fail.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
import pytest

from core.results import NotGradedStudy, ObjectKind, Report, SRClass
from tests.conformance.matrix import EDITS, build_reports
from tests.support.builders.sources import not_graded, sample_studies, sample_study
from tests.support.servers.validators import dciodvfy, dsrdump
from worker.grading.stages.selection import select_series

if TYPE_CHECKING:
    from tests.support.servers.validators import PixelMed


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    return build_reports(tmp_path_factory.mktemp("sources"))


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
def test_the_report_on_the_sample_study_is_valid(tmp_path: Path, pixelmed: PixelMed) -> None:
    report = sample_study().build(SRClass.COMPREHENSIVE_3D, parametric_map=True)
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
def test_every_sample_that_is_not_graded_has_a_valid_report(tmp_path: Path) -> None:
    faults: dict[str, list[str]] = {}
    for number, (name, study) in enumerate(sample_studies().items()):
        selection = select_series(study)
        assert selection.series is None
        result = NotGradedStudy("r", selection.reason, selection.detail, selection.verdicts)
        path = tmp_path / f"{number}.dcm"
        report = not_graded(study, result, list(SRClass)[number % 2])
        path.write_bytes(report.objects[0].content)
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
