"""A report has the same bytes for every lossless transfer syntax of the study.

So the validators need to see one report of each kind of source. Every lossless syntax that an
encoder here writes is tried. High-Throughput JPEG 2000 (.201, .202) is received, but not tried:
neither DCMTK nor OpenJPEG encodes it. Files that others wrote in seven of these syntaxes are read
in `tests/unit/worker/grading/stages/test_assembly.py`, and rejected as mosaics in
`test_validators.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.uid import ExplicitVRLittleEndian

from core.results import ObjectKind, SRClass
from tests.conformance.syntaxes import COMMANDS, Kind, stored_values, write_study
from tests.support.builders.sources import inputs
from tests.support.servers.validators import dciodvfy, dsrdump
from worker.grading.stages.assembly import read_volume
from worker.grading.stages.selection import select_series

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.uid import UID

    from core.results import Report
    from tests.support.servers.validators import PixelMed

KINDS: tuple[Kind, ...] = ("classic", "enhanced")


def report_on(folder: Path, kind: Kind, syntax: UID) -> Report:
    volume = read_volume(select_series(write_study(folder, kind, syntax)).require_series())
    assert np.array_equal(sitk.GetArrayViewFromImage(volume.image), stored_values())
    return inputs(volume).build(SRClass.COMPREHENSIVE_3D, parametric_map=True)


@pytest.fixture(scope="module")
def uncompressed(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Report]:
    """Reports on the uncompressed source."""
    return {
        kind: report_on(tmp_path_factory.mktemp(kind), kind, ExplicitVRLittleEndian)
        for kind in KINDS
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_is_valid(
    tmp_path: Path, uncompressed: dict[Kind, Report], kind: Kind, pixelmed: PixelMed
) -> None:
    errors: dict[str, list[str]] = {}
    for number, item in enumerate(uncompressed[kind].objects):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(item.content)
        errors[f"{number} {item.kind}, dciodvfy"] = dciodvfy(path)
        if item.kind is ObjectKind.STRUCTURED_REPORT:
            errors[f"{number} {item.kind}, dsrdump"] = dsrdump(path)
            errors[f"{number} {item.kind}, PixelMed"] = pixelmed.errors(path)
    assert errors == {name: [] for name in errors}
    assert {item.kind for item in uncompressed[kind].objects} == set(ObjectKind)


@pytest.mark.parametrize("syntax", [s for s in COMMANDS if s != ExplicitVRLittleEndian])
@pytest.mark.parametrize("kind", KINDS)
def test_the_report_does_not_depend_on_the_transfer_syntax(
    tmp_path: Path, uncompressed: dict[Kind, Report], kind: Kind, syntax: UID
) -> None:
    expected = uncompressed[kind].objects
    found = report_on(tmp_path, kind, syntax).objects
    assert [item.sop_instance_uid for item in found] == [item.sop_instance_uid for item in expected]
    for written, wanted in zip(found, expected, strict=True):
        assert written.content == wanted.content, f"the {wanted.kind} differs"
