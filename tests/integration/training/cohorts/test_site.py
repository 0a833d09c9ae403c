"""Cohort of a site: DICOM and NIfTI, resuming, invalid rows, training and export.

This is an integration test because it generates and registers whole scans.
"""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from core.errors import ConfigurationError
from training.cli import main
from training.cohorts.examples import rating_of, register_scan
from training.cohorts.folder import describe_cohort, load_cohort, require_severity_labels
from training.cohorts.scans import load_scan
from training.cohorts.site import build_site_cohort
from training.cohorts.site_table import GRADES, IMAGES, BadRows
from training.synthetic.dicom import T1_MPRAGE, T2_TSE, as_image, write_series
from training.synthetic.subjects import make_subject
from worker.grading.stages.rating import prepare_rating
from worker.grading.stages.template import load_template

COUNTS = (0, 3, 12, 5, 30, 44)
HEADER = ("subject", "path", *IMAGES, "severity_count")


def _write(file: Path, rows: list[tuple[object, ...]], header: tuple[str, ...] = HEADER) -> Path:
    with file.open("w", newline="", encoding="utf-8") as text:
        csv.writer(text).writerows([header, *rows])
    return file


def _build(file: Path, folder: Path, *, skip: bool = False) -> list[str]:
    return list(build_site_cohort(file, folder, skip_bad_rows=skip))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One subject as DICOM and as NIfTI in a common storage order; a T1 series; noise."""
    folder = tmp_path_factory.mktemp("scans")
    subject = make_subject(31, 2, "rating-paper")
    write_series(folder / "dicom", subject.voxels, subject.grid, T2_TSE, "31")
    (folder / "dicom" / "notes.txt").write_text("not DICOM")
    write_series(folder / "t1", subject.voxels, subject.grid, T1_MPRAGE, "32")
    turned = sitk.DICOMOrient(as_image(subject), "RAS")
    sitk.WriteImage(turned, str(folder / "scan.nii.gz"))
    noise = sitk.GetImageFromArray(np.random.default_rng(0).random((28, 96, 96), np.float32))
    noise.SetSpacing((1.2, 1.2, 5.0))
    noise.SetOrigin((-57.0, -57.0, -65.0))
    sitk.WriteImage(noise, str(folder / "noise.nii"))
    return folder


@pytest.fixture(scope="module")
def cohort(scans: Path) -> Path:
    """Cohort of both files of the subject."""
    file = _write(
        scans / "good.csv",
        [("a", "dicom", *COUNTS, 44), ("b", "scan.nii.gz", *COUNTS, 60)],
    )
    lines = _build(file, scans / "good")
    assert [line.split(":")[0] for line in lines] == ["1/2 line 2", "2/2 line 3"]
    return scans / "good"


def test_dicom_and_nifti_of_a_scan_give_the_same_inputs(cohort: Path, scans: Path) -> None:
    dicom, nifti = load_scan(scans / "dicom"), load_scan(scans / "scan.nii.gz")
    voxels = [sitk.GetArrayViewFromImage(volume.image) for volume in (dicom, nifti)]
    assert np.array_equal(voxels[0], voxels[1])
    registration = register_scan(dicom, load_template())
    crops = [prepare_rating(volume, registration).crops for volume in (dicom, nifti)]
    assert np.abs(crops[0] - crops[1]).max() < 0.01
    one, other = sorted(load_cohort(cohort), key=lambda e: e.severity_count)
    assert one.counts.tolist() == other.counts.tolist() == list(COUNTS)
    assert (one.severity_count, other.severity_count) == (44, 60)
    # NIfTI stores the affine as float32, so that the registrations differ by part of a pixel.
    assert np.corrcoef(one.crops.ravel(), other.crops.ravel())[0, 1] > 0.9
    assert np.corrcoef(one.volume.ravel(), other.volume.ravel())[0, 1] > 0.9


def test_second_run_resumes_and_a_changed_row_replaces_its_example(
    cohort: Path, scans: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(cohort, tmp_path / "cohort")
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    _build(scans / "good.csv", folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")} == before
    grades = _write(
        scans / "grades.csv",
        [("b", "scan.nii.gz", 0, 1, 2, 3, 4, 0)],
        ("subject", "path", *GRADES),
    )
    _build(grades, folder)
    (example,) = load_cohort(folder)
    assert rating_of(example.counts).tolist() == [0, 1, 2, 3, 4, 0]
    assert describe_cohort(folder)["labels"] == "grades"
    with pytest.raises(ConfigurationError, match="no severity_count"):
        require_severity_labels(folder)


def test_all_invalid_rows_are_reported_and_the_cohort_stays_incomplete(
    cohort: Path, scans: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(cohort, tmp_path / "cohort")
    (scans / "empty").mkdir(exist_ok=True)
    for name, length in (("broken", 400), ("cut", -1000)):
        folder_of_files = shutil.copytree(scans / "dicom", scans / name)
        damaged = folder_of_files / "0003.dcm"
        damaged.write_bytes(damaged.read_bytes()[:length])
    file = _write(
        scans / "bad.csv",
        [
            ("a", "dicom", *COUNTS, 44),
            ("a", "scan.nii.gz", *COUNTS, 60),
            ("c", "nowhere", *COUNTS, 60),
            ("d", "t1", *COUNTS, 60),
            ("e", "noise.nii", *COUNTS, 60),
            ("f", "notes.csv", 0, "", -1, "3.5", 0, 999, 60),
            ("g", "empty", *COUNTS, 7),
            ("h", "broken", *COUNTS, 60),
            ("i", "dicom", *COUNTS, 60),
            ("j", "cut", *COUNTS, 60),
        ],
    )
    with pytest.raises(BadRows) as raised:
        _build(file, folder)
    reasons = [(problem.line, problem.reason.split(":")[0]) for problem in raised.value.problems]
    assert reasons == [
        (3, "duplicate subject, already in line 2"),
        (4, "path does not exist"),
        (5, "inversion-recovery"),
        (6, "not-a-t2-brain"),
        (7, "inferior_R is '', not a whole number from 0 to 500"),
        (7, "middle_L is '-1', not a whole number from 0 to 500"),
        (7, "middle_R is '3.5', not a whole number from 0 to 500"),
        (7, "path does not exist"),
        (7, "superior_R is '999', not a whole number from 0 to 500"),
        (8, "severity_count 7 is below the highest count of an image, 44"),
        (9, "file 3 of 29 is a damaged DICOM file (KeyError)"),
        (10, "the same scan as line 2"),
        (11, "undecodable-pixels"),
    ]
    assert all(f"line {line}" in str(raised.value) for line, _ in reasons)
    for read in (load_cohort, describe_cohort):
        with pytest.raises(ConfigurationError, match="incomplete"):
            read(folder)
    skipped = [line for line in _build(file, folder, skip=True) if line.startswith("skipped")]
    assert len(skipped) == len(reasons)
    assert describe_cohort(folder)["skipped_rows"] == 9
    assert len(load_cohort(folder)) == 1


def test_training_from_a_csv_file_and_export_of_new_versions(
    cohort: Path, scans: Path, tmp_path: Path
) -> None:
    run, models = tmp_path / "run", tmp_path / "models"
    shutil.copytree(cohort, run / "cohort")  # as after an interrupted run
    train = ["train", "rating", "--cohort", str(scans / "good.csv"), "--run", str(run)]
    assert main([*train, "--epochs", "1"]) == 0
    bad = ["train", "rating", "--cohort", str(scans / "missing.csv"), "--run", str(tmp_path / "x")]
    assert main([*bad, "--epochs", "1"]) == 1
    assert not (tmp_path / "x").exists()

    seen = ["export", "rating", "--run", str(run), "--models", str(models)]
    assert main([*seen, "--cohort", str(run / "cohort")]) == 1  # the training cohort
    described = json.loads((cohort / "cohort.json").read_text())
    held_out = shutil.copytree(cohort, tmp_path / "held-out")
    (held_out / "cohort.json").write_text(json.dumps(described | {"csv_sha256": "another"}))
    resume = ["train", "rating", "--cohort", str(held_out), "--run", str(run)]
    assert main([*resume, "--epochs", "2"]) == 1  # other subjects than at the start
    export = [*seen, "--cohort", str(held_out)]
    assert main(export) == 0
    first = {path.name: path.read_bytes() for path in (models / "rating" / "1").iterdir()}
    assert sorted(first) == [
        "MODEL.md",
        "golden.npz",
        "model.fp16.onnx",
        "model.json",
        "model.onnx",
    ]
    assert main([*export, "--version", "1"]) == 1
    default = json.loads(first["model.json"])["intended_use"]
    assert default.startswith("Research use only: trained on one site's own readings")
    assert default.encode() in first["MODEL.md"]
    assert main([*export, "--intended-use", "Für Forschung"]) == 1
    statement = "For research at Example Hospital only."
    assert main([*export, "--intended-use", statement]) == 0
    described = json.loads((models / "rating" / "2" / "model.json").read_text())
    assert (described["intended_use"], described["research_use_only"]) == (statement, True)
    for name, content in first.items():
        assert (models / "rating" / "1" / name).read_bytes() == content
    newest = (models / "rating" / "2" / "MODEL.md").read_text(encoding="utf-8")
    assert "(version 2)" in newest
    assert statement in newest
    assert "2 subjects of a site, labelled by counts" in newest
    assert sorted(path.name for path in (models / "rating").iterdir()) == ["1", "2"]
