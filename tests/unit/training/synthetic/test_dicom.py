"""Sample study: series selection and assembly of the node accept it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from core.reasons import Reason
from tests.support.builders.series_files import closed_study
from tests.support.paths import ROOT
from training.synthetic.dicom import T2_TSE, write_sample_study, write_series
from training.synthetic.subjects import Subject
from worker.grading.stages.assembly import read_volume
from worker.grading.stages.selection import select_series


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Subject]:
    folder = tmp_path_factory.mktemp("study")
    return folder, write_sample_study(folder, seed=7)


def test_node_selects_the_t2_series_and_reads_its_voxels(
    study: tuple[Path, Subject],
) -> None:
    folder, subject = study
    selected = select_series(closed_study(folder))
    volume = read_volume(selected.require_series())
    assert sorted(v.reason for v in selected.verdicts).count(Reason.SELECTED) == 1
    assert len(selected.verdicts) == 2
    assert volume.image.GetSize() == (384, 512, 56)
    expected = subject.grid.image(subject.voxels)
    for point in ((0, 0, 0), (100, 200, 28), (383, 511, 55)):
        assert volume.image[point] == expected[point]
        here, there = (i.TransformIndexToPhysicalPoint(point) for i in (volume.image, expected))
        assert np.allclose(here, there, atol=1e-3)


def test_study_is_small_and_reproducible(study: tuple[Path, Subject], tmp_path: Path) -> None:
    folder, subject = study
    files = sorted(folder.rglob("*.dcm"))
    assert len({pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID for f in files}) == 82
    assert sum(f.stat().st_size for f in files) < 60e6
    (again,) = write_series(tmp_path, subject.voxels[:1], subject.grid, T2_TSE, "7")
    assert again.read_bytes() == (folder / "t2-tse-axial/0001.dcm").read_bytes()


def test_generator_imports_neither_torch_nor_scipy() -> None:
    program = (
        "import sys, training.cli, training.synthetic.dicom\n"
        "print({'torch', 'scipy', 'sklearn', 'onnxruntime'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
