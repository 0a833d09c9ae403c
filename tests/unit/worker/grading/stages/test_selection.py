"""Series selection: the series to grade, and the verdicts on all others."""

from __future__ import annotations

import random
from struct import pack, unpack_from
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.tag import Tag
from pydicom.uid import MRImageStorage

from core.errors import Failed
from core.reasons import Reason
from core.studies import ClosedStudy, SpooledInstance
from tests.support.builders.series_files import (
    AXIAL,
    OBLIQUE,
    closed_study,
    enhanced,
    stored_study,
    t2_slices,
    write,
)
from tests.support.paths import SAMPLE_DATA
from worker.grading.errors import NotGradable
from worker.grading.stages.selection import select_series

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom.dataset import Dataset

    from worker.grading.records import SelectedSeries, Selection


def select(study: ClosedStudy) -> SelectedSeries:
    return select_series(study).require_series()


def reject(study: ClosedStudy) -> Selection:
    selection = select_series(study)
    assert selection.series is None
    return selection


def reject_files(folder: Path, *series: list[Dataset]) -> Selection:
    return reject(stored_study(folder, *series))


# --- Selected series ----------------------------------------------------------------------------
@pytest.mark.sample_data
def test_sample_study_yields_its_axial_t2() -> None:
    selection = select_series(closed_study(SAMPLE_DATA / "study-brain-siemens"))
    selected = selection.require_series()

    assert {s.path.parent.name for s in selected.slices} == {"t2-tse-axial"}
    assert len(selected.slices) == 56
    assert selected.slice_spacing_mm == pytest.approx(2.5, abs=1e-3)
    reasons = sorted(verdict.reason for verdict in selection.verdicts)
    assert reasons == [Reason.DERIVED, Reason.DERIVED, Reason.INVERSION_RECOVERY, Reason.SELECTED]


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE, (-1, 0, 0, 0, 1, 0), (1, 0, 0, 0, -1, 0)])
def test_slices_are_sorted_from_inferior_to_superior(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    slices = t2_slices(orientation=orientation)
    random.Random(0).shuffle(slices)

    selected = select(stored_study(tmp_path, slices))

    heights = [location.position_mm[2] for location in selected.slices]
    assert heights == sorted(heights)
    assert selected.slice_spacing_mm == pytest.approx(4.0, abs=1e-3)


def test_enhanced_mr_is_selected_like_classic_mr(tmp_path: Path) -> None:
    slices = t2_slices(orientation=OBLIQUE)
    classic = select(stored_study(tmp_path / "classic", slices))
    multi_frame = select(stored_study(tmp_path / "enhanced", [enhanced(slices[::-1])]))

    assert [s.frame_number for s in multi_frame.slices] == list(range(20, 0, -1))
    assert [s.position_mm for s in multi_frame.slices] == [s.position_mm for s in classic.slices]
    assert multi_frame.orientation == classic.orientation
    assert multi_frame.pixel_spacing_mm == classic.pixel_spacing_mm


def test_description_and_body_part_are_ignored(tmp_path: Path) -> None:
    lying = t2_slices(SeriesDescription="T1 sag localizer DWI", BodyPartExamined="KNEE")
    select(stored_study(tmp_path / "lying", lying))

    boast = t2_slices(SeriesDescription="T2 TSE axial brain", EchoTime=12, RepetitionTime=500)
    assert reject_files(tmp_path / "boast", boast).reason is Reason.NOT_T2_WEIGHTED


def test_finer_pixels_win_then_closer_slices_then_more_slices(tmp_path: Path) -> None:
    fine = t2_slices(20, series_uid="2.25.10", PixelSpacing=[0.5, 0.5], spacing_mm=6.0)
    close = t2_slices(20, series_uid="2.25.11", spacing_mm=3.0)
    long = t2_slices(24, series_uid="2.25.12")
    short = t2_slices(20, series_uid="2.25.13")

    for best, others in ((fine, (close, long)), (close, (long, short)), (long, (short,))):
        folder = tmp_path / best[0].SeriesInstanceUID
        selection = select_series(stored_study(folder, *others, best))
        chosen = selection.require_series().series_uid
        assert chosen == best[0].SeriesInstanceUID
        unselected = [v.reason for v in selection.verdicts if v.series_uid != chosen]
        assert unselected == [Reason.LESS_SUITABLE] * len(others)


# --- Refused series -----------------------------------------------------------------------------
@pytest.mark.sample_data
@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("reject/pd-fse-axial-ge", Reason.NOT_T2_WEIGHTED),
        ("reject/t1-gre-sagittal-uih", Reason.INVERSION_RECOVERY),
        # De-identification removed its diffusion attributes; it is still recognised as EPI.
        ("reject/dti-axial-toshiba", Reason.ECHO_PLANAR),
        ("reject/localizer-3plane-ge", Reason.LOCALIZER),
        ("reject/epi-mosaic-siemens", Reason.MOSAIC),
        ("reject/dual-echo-mag-phase-philips", Reason.PHASE),
        ("reject/phase-fieldmap-siemens", Reason.PHASE),
        ("reject/enhanced-mr-epi-siemens", Reason.NO_SUITABLE_SERIES),
        ("syntaxes/mosaic-7-transfer-syntaxes", Reason.MOSAIC),
    ],
)
def test_real_series_that_are_not_axial_t2(folder: str, reason: Reason) -> None:
    selection = reject(closed_study(SAMPLE_DATA / folder))
    assert selection.reason is reason
    assert Reason.UNREADABLE not in {verdict.reason for verdict in selection.verdicts}


@pytest.mark.sample_data
@pytest.mark.parametrize(
    ("folder", "reason", "geometric"),
    [
        ("failing-gantrytilting-001", Reason.NOT_MR, Reason.GANTRY_TILT),
        ("failing-notavolume-001", Reason.NOT_MR, Reason.DUPLICATE_POSITIONS),
        ("failing-slicecount-001", Reason.INVERSION_RECOVERY, Reason.TOO_FEW_SLICES),
        ("failing-sliceincrement-002", Reason.NOT_MR, Reason.GANTRY_TILT),
        ("failing-sliceorientation-001", Reason.MIXED_ORIENTATION, Reason.SEVERAL_ECHOES),
        ("hitachi-anatomical-001", Reason.NOT_T2_WEIGHTED, Reason.NOT_AXIAL),
    ],
)
def test_faulty_geometry_is_always_reported(folder: str, reason: Reason, geometric: Reason) -> None:
    selection = reject(closed_study(SAMPLE_DATA / "malformed/d2n-geometry" / folder))
    assert selection.reason is reason
    assert f"also {geometric.value}: " in selection.detail


@pytest.mark.sample_data
@pytest.mark.parametrize("folder", ["pydicom-broken", "pydicom-charsets"])
def test_every_malformed_file_ends_with_a_reason(folder: str, tmp_path: Path) -> None:
    for path in sorted((SAMPLE_DATA / "malformed" / folder).iterdir()):
        alone = tmp_path / path.name
        alone.mkdir()
        (alone / path.name).symlink_to(path)
        selection = reject(closed_study(alone))
        assert len(selection.verdicts) == 1


def _set(keyword: str, value: Any, *indices: int) -> Callable[[list[Dataset]], None]:
    def change(slices: list[Dataset]) -> None:
        for ds in [slices[k] for k in indices] or slices:
            setattr(ds, keyword, value)

    return change


def _shift(k: int, *, along: int, by: float) -> Callable[[list[Dataset]], None]:
    def change(slices: list[Dataset]) -> None:
        slices[k].ImagePositionPatient[along] += by

    return change


def _shear(slices: list[Dataset]) -> None:
    for k, ds in enumerate(slices):
        ds.ImagePositionPatient[1] += 0.2 * k


def _claim_a_huge_matrix(slices: list[Dataset]) -> None:
    for ds in slices:
        ds.Rows = ds.Columns = 65535


def _drop_tag(slices: list[Dataset]) -> None:
    del slices[7].ImagePositionPatient


SAGITTAL = [0, 1, 0, 0, 0, -1]
FAULTS: list[tuple[Reason, Callable[[list[Dataset]], object]]] = [
    (Reason.NOT_MR, _set("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2")),
    (Reason.DERIVED, _set("ImageType", ["DERIVED", "SECONDARY", "MPR"])),
    (Reason.LOCALIZER, _set("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"])),
    (Reason.MOSAIC, _set("ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"])),
    (Reason.PHASE, _set("ImageType", ["ORIGINAL", "PRIMARY", "P", "ND"], 3)),
    (Reason.DIFFUSION, _set("DiffusionBValue", 1000.0, 4)),
    (Reason.ECHO_PLANAR, _set("ScanningSequence", ["SE", "EP"])),
    (Reason.INVERSION_RECOVERY, _set("InversionTime", 2500)),
    (Reason.GRADIENT_ECHO, _set("ScanningSequence", "GR")),
    (Reason.NOT_T2_WEIGHTED, _set("EchoTime", None)),
    (Reason.NOT_T2_WEIGHTED, _set("RepetitionTime", 1900)),
    (Reason.SEVERAL_ECHOES, _set("EchoTime", 22, *range(0, 20, 2))),
    (Reason.SEVERAL_ECHOES, _set("EchoNumbers", 2, 5)),
    (Reason.MISSING_GEOMETRY, _drop_tag),
    (Reason.MISSING_GEOMETRY, _set("ImageOrientationPatient", [0] * 6)),
    (Reason.MISSING_GEOMETRY, _set("PixelSpacing", [0, 0])),
    (Reason.MIXED_ORIENTATION, _set("ImageOrientationPatient", list(OBLIQUE), 9)),
    (Reason.NOT_AXIAL, _set("ImageOrientationPatient", SAGITTAL)),
    (Reason.GANTRY_TILT, _shear),
    (Reason.DUPLICATE_POSITIONS, _shift(8, along=2, by=4.0)),
    (Reason.MISSING_SLICE, lambda slices: slices.pop(11)),
    (Reason.IRREGULAR_SPACING, _shift(8, along=2, by=0.6)),
    (Reason.IRREGULAR_SPACING, _shift(8, along=0, by=2.0)),
    (Reason.INCONSISTENT_MATRIX, _set("Rows", 48, 2)),
    (Reason.INCONSISTENT_MATRIX, _set("PixelSpacing", [0.9, 0.9], 2)),
    (Reason.INCONSISTENT_MATRIX, _claim_a_huge_matrix),
    (Reason.INCONSISTENT_RESCALE, _set("RescaleSlope", 2, 6)),
    (Reason.PIXELS_TOO_COARSE, _set("PixelSpacing", [1.3, 1.3])),
    (Reason.TOO_FEW_SLICES, lambda slices: slices.__delitem__(slice(11, None))),
]


@pytest.mark.parametrize(("reason", "change"), FAULTS)
def test_each_fault_has_its_own_reason(
    tmp_path: Path, reason: Reason, change: Callable[[list[Dataset]], object]
) -> None:
    slices = t2_slices(spacing_mm=4.0)
    change(slices)
    selection = reject_files(tmp_path, slices)
    assert selection.reason is reason
    assert [verdict.reason for verdict in selection.verdicts] == [reason]


def test_slices_too_thick(tmp_path: Path) -> None:
    assert reject_files(tmp_path, t2_slices(spacing_mm=7.5)).reason is Reason.SLICES_TOO_THICK


def test_a_gap_is_reported_with_its_size(tmp_path: Path) -> None:
    slices = t2_slices()
    del slices[11]
    assert "gap of 8.00 mm after slice 11 (others 4.00 mm)" in reject_files(tmp_path, slices).detail


def test_enhanced_mr_faults_are_found_in_functional_groups(tmp_path: Path) -> None:
    faults: dict[Reason, Callable[[Dataset], None]] = {
        Reason.ECHO_PLANAR: lambda ds: setattr(ds, "EchoPlanarPulseSequence", "YES"),
        Reason.INVERSION_RECOVERY: lambda ds: setattr(
            ds.SharedFunctionalGroupsSequence[0].MRModifierSequence[0], "InversionRecovery", "YES"
        ),
        Reason.NOT_T2_WEIGHTED: lambda ds: setattr(
            ds.SharedFunctionalGroupsSequence[0].MREchoSequence[0], "EffectiveEchoTime", 20.0
        ),
        Reason.MISSING_GEOMETRY: lambda ds: delattr(
            ds.PerFrameFunctionalGroupsSequence[3], "PlanePositionSequence"
        ),
        Reason.UNREADABLE: lambda ds: setattr(ds, "NumberOfFrames", 21),
    }
    for reason, change in faults.items():
        ds = enhanced(t2_slices())
        change(ds)
        assert reject_files(tmp_path / reason.value, [ds]).reason is reason


# --- The reason for the study -------------------------------------------------------------------
def test_a_near_miss_gives_the_study_its_reason(tmp_path: Path) -> None:
    t1 = t2_slices(series_uid="2.25.20", EchoTime=10, RepetitionTime=500)
    incomplete = t2_slices(series_uid="2.25.21")
    del incomplete[4]
    selection = reject_files(tmp_path, t1, incomplete)
    assert selection.reason is Reason.MISSING_SLICE
    assert len(selection.verdicts) == 2


def test_study_of_other_contrasts_has_no_suitable_series(tmp_path: Path) -> None:
    t1 = t2_slices(series_uid="2.25.20", EchoTime=10, RepetitionTime=500)
    flair = t2_slices(series_uid="2.25.21", InversionTime=2500)
    selection = reject_files(tmp_path, t1, flair)
    assert selection.reason is Reason.NO_SUITABLE_SERIES
    assert selection.detail == "series: 1 inversion-recovery, 1 not-t2-weighted"


def test_empty_study(tmp_path: Path) -> None:
    selection = reject_files(tmp_path)
    assert selection.reason is Reason.NO_IMAGES
    with pytest.raises(NotGradable, match="no-images: the study holds no instances"):
        selection.require_series()


def test_one_unreadable_file_excludes_the_series(tmp_path: Path) -> None:
    study = stored_study(tmp_path, t2_slices())
    damaged = study.instances[5].path
    damaged.write_bytes(damaged.read_bytes()[:420])
    selection = reject(study)
    assert selection.reason is Reason.UNREADABLE
    assert selection.detail.startswith("1 of 20 files")


def test_a_missing_file_is_a_failure_of_the_node(tmp_path: Path) -> None:
    study = stored_study(tmp_path, t2_slices())
    study.instances[5].path.unlink()
    with pytest.raises(Failed) as caught:
        select_series(study)
    assert caught.value.code == "spool-unreadable"


# --- Hostile headers ----------------------------------------------------------------------------
FUZZED = [
    "ImageType",
    "ScanningSequence",
    "EchoTime",
    "RepetitionTime",
    "EchoNumbers",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "Rows",
    "NumberOfFrames",
    "RescaleSlope",
    "SOPClassUID",
]
HOSTILE = st.one_of(
    st.binary(max_size=24),
    st.sampled_from([b"Okapi", b"nan\\inf\\1e999", b"1e308\\1e308\\1e308", b"", b"\\" * 9, b"0"]),
    st.floats().map(lambda x: str(x).encode()),
)


@pytest.mark.filterwarnings("ignore")  # pydicom's warnings about illegal values
@settings(max_examples=30, deadline=None)
@given(keyword=st.sampled_from(FUZZED), value=HOSTILE, which=st.sampled_from([0, 7, None]))
def test_any_header_value_ends_in_a_selection_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, keyword: str, value: bytes, which: int | None
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    write(folder, t2_slices(16, NumberOfFrames=1, RescaleSlope=1))
    paths = sorted(folder.iterdir())
    for path in paths if which is None else [paths[which]]:
        _patch(path, keyword, value + b" " * (len(value) % 2))
    _select_or_reject(folder)


@pytest.mark.filterwarnings("ignore")  # pydicom's warnings about illegal values
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_bytes=st.integers(1, 40))
def test_any_damage_to_an_enhanced_file_ends_in_a_selection_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    write(folder, [enhanced(t2_slices(16))])
    path = folder / "001.dcm"
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    header = content.size - 16 * 40 * 32 * 2
    rng = np.random.default_rng(seed)
    content[rng.integers(132, header, n_bytes)] = rng.integers(0, 256, n_bytes)
    path.write_bytes(content.tobytes()[: int(rng.integers(header // 2, 2 * content.size))])
    _select_or_reject(folder)


def _patch(path: Path, keyword: str, value: bytes) -> None:
    """Replace the value of an element in an explicit little-endian file, unchecked."""
    tag = Tag(tag_for_keyword(keyword) or 0)
    content = path.read_bytes()
    start = content.index(pack("<HH2s", tag.group, tag.element, dictionary_VR(tag).encode())) + 6
    (length,) = unpack_from("<H", content, start)
    rest = content[start + 2 + length :]
    path.write_bytes(content[:start] + pack("<H", len(value)) + value + rest)


def _select_or_reject(folder: Path) -> None:
    # As the receiver records it: from the association, not from these bytes.
    instances = tuple(
        SpooledInstance(path, f"2.25.2.{k}", MRImageStorage, "2.25.2")
        for k, path in enumerate(sorted(folder.iterdir()))
    )
    study = ClosedStudy("2.25.1", "revision-1", 1, instances)
    result = select_series(study)
    assert result.verdicts
    assert not any("Okapi" in verdict.detail for verdict in result.verdicts)
