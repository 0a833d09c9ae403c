"""The validators detect faults: each one names what is damaged in an object.

dciodvfy checks every class. dsrdump and PixelMed read SR documents only: PixelMed's own check of
IODs knows neither Secondary Capture nor Parametric Map ("IOD (SOP Class) unrecognized").
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import pydicom
import pytest

from core.results import ObjectKind, SRClass
from tests.support.builders.sources import classic, inputs, not_graded, refused
from tests.support.servers.validators import PixelMed, dciodvfy, dsrdump
from worker.grading.stages.report.content_tree import walk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom.dataset import Dataset

    Break = Callable[[Dataset], object]

DOCUMENTS = ("sr", "sr, 3d", "sr, not graded")
CLASSES = (*DOCUMENTS, "sc", "pm")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One valid object of each class."""
    source = inputs(classic(tmp_path_factory.mktemp("source")))
    graded = source.build(parametric_map=True)
    refusal = not_graded(source.study, refused(source.volume.series.series_uid))
    made = {item.kind: item.content for item in graded.objects}
    return {
        "sr": made[ObjectKind.STRUCTURED_REPORT],
        "sr, 3d": source.build(SRClass.COMPREHENSIVE_3D).objects[-1].content,
        "sr, not graded": refusal.objects[0].content,
        "sc": made[ObjectKind.SECONDARY_CAPTURE],
        "pm": made[ObjectKind.PARAMETRIC_MAP],
    }


@pytest.fixture
def broken(objects: dict[str, bytes], tmp_path: Path) -> Callable[[str, Break], Path]:
    """Write a damaged copy of an object."""

    def write(name: str, damage: Break) -> Path:
        ds = pydicom.dcmread(BytesIO(objects[name]))
        damage(ds)
        ds.save_as(tmp_path / "broken.dcm")
        return tmp_path / "broken.dcm"

    return write


def without(*keywords: str) -> Break:
    """Delete attributes of the data set or of its only shared functional group."""

    def damage(ds: Dataset) -> None:
        for keyword in keywords:
            holder = ds if keyword in ds else ds.SharedFunctionalGroupsSequence[0]
            delattr(holder, keyword)

    return damage


def having(**attributes: object) -> Break:
    def damage(ds: Dataset) -> None:
        for keyword, value in attributes.items():
            assert keyword in ds
            setattr(ds, keyword, value)

    return damage


def first_item(**wanted: str) -> Callable[[Dataset], Dataset]:
    """The first content item with these attributes; ``concept`` is its concept's code value."""

    def find(ds: Dataset) -> Dataset:
        def fits(item: Dataset) -> bool:
            names = item.get("ConceptNameCodeSequence") or [pydicom.Dataset()]
            seen = {"concept": names[0].get("CodeValue"), "ValueType": item.ValueType}
            return all(seen[key] == value for key, value in wanted.items())

        return next(item for item in walk(ds) if fits(item))

    return find


def _loses(find: Callable[[Dataset], Dataset], keyword: str) -> Break:
    return lambda ds: delattr(find(ds), keyword)


def _drops(concept: str) -> Break:
    """Remove the item of this concept from the children of the document's root."""

    def damage(ds: Dataset) -> None:
        item = first_item(concept=concept)(ds)
        ds.ContentSequence = [child for child in ds.ContentSequence if child is not item]

    return damage


def _relates(find: Callable[[Dataset], Dataset], relationship: str) -> Break:
    return lambda ds: setattr(find(ds), "RelationshipType", relationship)


def _says(concept: str, code: str) -> Break:
    def damage(ds: Dataset) -> None:
        first_item(concept=concept)(ds).ConceptCodeSequence[0].CodeValue = code

    return damage


def _regions_lose_their_image(ds: Dataset) -> None:
    for item in walk(ds):
        if item.ValueType == "SCOORD":
            del item.ContentSequence


LANGUAGE, DEVICE_UID, PROCEDURE = "121049", "121012", "121058"
IMAGE, TEXT = first_item(ValueType="IMAGE"), first_item(ValueType="TEXT")
OF_EVERY_DOCUMENT: dict[str, tuple[Break, dict[str, str]]] = {
    "evidence missing": (
        without("CurrentRequestedProcedureEvidenceSequence"),
        {"dciodvfy": "not listed in CurrentRequestedProcedureEvidenceSequence"},
    ),
    "completion flag missing": (
        without("CompletionFlag"),
        {"dciodvfy": "Element=<CompletionFlag>", "dsrdump": "CompletionFlag (0040,a491) absent"},
    ),
    "text without its value": (
        _loses(TEXT, "TextValue"),
        {
            "dciodvfy": "Element=<TextValue>",
            "dsrdump": "TextValue (0040,a160) absent",
            "PixelMed": "Missing value",
        },
    ),
    "image without its reference": (
        _loses(IMAGE, "ReferencedSOPSequence"),
        {"dciodvfy": "Element=<ReferencedSOPSequence>", "dsrdump": "content item IMAGE"},
    ),
    "unknown relationship": (
        _relates(first_item(concept=LANGUAGE), "LIKES"),
        {"dsrdump": "RelationshipType (LIKES)", "PixelMed": "illegal relationship LIKES"},
    ),
    "relationship outside the template": (
        _relates(first_item(concept=PROCEDURE), "HAS PROPERTIES"),
        {"PixelMed": "expected HAS CONCEPT MOD - found HAS PROPERTIES"},
    ),
    "code outside the template": (
        _says(PROCEDURE, "24590-2"),  # not one of TID 1500's
        {"PixelMed": "24590-2"},
    ),
    "required content missing": (
        _drops(DEVICE_UID),
        {"PixelMed": "Missing required content item"},
    ),
}
"""For each fault: how to make it, and the words with which each validator must report it."""
CONTROLS: list[tuple[str, str, Break, dict[str, str]]] = [
    *(
        (name, fault, damage, reported)
        for name in DOCUMENTS
        for fault, (damage, reported) in OF_EVERY_DOCUMENT.items()
    ),
    *(
        (name, "regions without their image", _regions_lose_their_image, {"PixelMed": "SCOORD"})
        for name in ("sr", "sr, 3d")
    ),
    ("sc", "attribute missing", without("ConversionType"), {"dciodvfy": "<ConversionType>"}),
    ("sc", "unknown value", having(PhotometricInterpretation="GREY"), {"dciodvfy": "<GREY>"}),
    ("sc", "size wrong", having(Rows=7), {"dciodvfy": "PixelData has incorrect value length"}),
    (
        "pm",
        "real-world values missing",
        without("RealWorldValueMappingSequence"),
        {"dciodvfy": "Element=<RealWorldValueMappingSequence>"},
    ),
    (
        "pm",
        "frames missing",
        having(NumberOfFrames=3),
        {"dciodvfy": "PerFrameFunctionalGroupsSequence does not match NumberOfFrames"},
    ),
    ("pm", "dimensions missing", without("DimensionIndexSequence"), {"dciodvfy": "Dimension"}),
    ("pm", "unknown value", having(ContentQualification="GOOD"), {"dciodvfy": "<GOOD>"}),
]


@pytest.mark.parametrize(
    ("name", "damage", "reported"),
    [pytest.param(n, d, r, id=f"{n}-{fault}") for n, fault, d, r in CONTROLS],
)
def test_a_damaged_object_is_reported(
    broken: Callable[[str, Break], Path],
    pixelmed: PixelMed,
    name: str,
    damage: Break,
    reported: dict[str, str],
) -> None:
    checks = {"dciodvfy": dciodvfy, "dsrdump": dsrdump, "PixelMed": pixelmed.errors}
    path = broken(name, damage)
    for validator, words in reported.items():
        assert any(words in error for error in checks[validator](path)), validator


@pytest.mark.parametrize("name", CLASSES)
def test_the_undamaged_object_is_not_reported(
    broken: Callable[[str, Break], Path], pixelmed: PixelMed, name: str
) -> None:
    """Reading and writing alone cause none of the errors above."""
    path = broken(name, lambda ds: None)
    assert dciodvfy(path) == []
    if name in DOCUMENTS:
        assert dsrdump(path) + pixelmed.errors(path) == []


def test_pixelmed_reports_an_unknown_template_and_an_unreadable_file(
    broken: Callable[[str, Break], Path], pixelmed: PixelMed, tmp_path: Path
) -> None:
    """A check that did not take place must not pass; the next file is checked normally."""

    def forget_the_template(ds: Dataset) -> None:
        del ds.ContentTemplateSequence
        ds.ConceptNameCodeSequence[0].CodeValue = "0"

    assert pixelmed.errors(broken("sr", forget_the_template))
    assert pixelmed.errors(tmp_path / "missing.dcm")
    assert pixelmed.errors(broken("sr", lambda ds: None)) == []
