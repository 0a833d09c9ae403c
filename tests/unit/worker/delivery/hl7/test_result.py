"""Content of the result message: the same as in the SR."""

from __future__ import annotations

from copy import deepcopy
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
from hl7apy.parser import parse_message

from core.destinations import Hl7Destination
from core.errors import Failed
from tests.support.builders.hl7_reading import field, names, segments, unescaped
from tests.support.builders.sources import INTENDED_USE, Inputs, classic, inputs
from worker.delivery.hl7.result import ResultMessage, result_message
from worker.grading.stages.report import codes
from worker.grading.stages.report.content_tree import is_named, walk

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

    from core.results import Report

RIS = Hl7Destination("192.0.2.7", 2575, "RIS", "HOSPITAL")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return inputs(classic(tmp_path_factory.mktemp("source")))


@pytest.fixture(scope="module")
def report(given: Inputs) -> Report:
    return given.build()


@pytest.fixture(scope="module")
def sr(report: Report) -> Dataset:
    return sr_of(report)


def sr_of(report: Report) -> Dataset:
    return pydicom.dcmread(BytesIO(report.objects[-1].content))


def message_of(sr: Dataset, destination: Hl7Destination = RIS) -> ResultMessage:
    return result_message(sr, destination, application="EPVSNODE")


def changed(sr: Dataset, **values: Any) -> Dataset:
    copy = deepcopy(sr)
    for keyword, value in values.items():
        setattr(copy, keyword, value)
    return copy


def not_graded(sr: Dataset) -> Dataset:
    """Return the SR of a study that was not graded: a reason in place of measurements."""
    copy = deepcopy(sr)
    copy.ContentSequence = [
        item for item in copy.ContentSequence if not is_named(item, codes.IMAGING_MEASUREMENTS)
    ]
    reason = next(item for item in walk(copy) if is_named(item, codes.AGREEMENT))
    reason.ConceptNameCodeSequence[0].CodeValue = codes.NOT_GRADED.value
    reason.ConceptNameCodeSequence[0].CodeMeaning = codes.NOT_GRADED.meaning
    reason.ConceptCodeSequence[0].CodeValue = "NGTHICK"
    reason.ConceptCodeSequence[0].CodeMeaning = "Slices lie too far apart"
    return copy


def observations(content: bytes) -> list[tuple[str, str, str, str, str]]:
    """Value type, code, group, value (or its code) and status of each OBX."""
    return [
        (obx[2], obx[3].split("^")[0], obx[4], unescaped(obx[5].split("^")[0]), obx[11])
        for obx in segments(content)
        if obx[0] == "OBX"
    ]


def test_header_patient_and_order(sr: Dataset) -> None:
    message = message_of(sr)
    msh, pid, obr = segments(message.content)[:3]
    assert msh[1:13] == ["|", "^~\\&", "EPVSNODE", "", "RIS", "HOSPITAL", "20260302110533", "",
                         "ORU^R01^ORU_R01", message.control_id, "P", "2.5.1"]  # fmt: skip
    assert msh[18] == "UNICODE UTF-8"
    assert pid[1:] == ["1", "", "CANARY-17", "", "Canary^Patient^^^^^^A", "", "19500101", "F"]
    assert obr[3].endswith("^EPVSNODE")
    assert obr[4] == "126000^Imaging Measurement Report^DCM"
    assert (obr[7], obr[18]) == ("20260302101500", "ACC0001")
    assert (obr[22], obr[24], obr[25]) == ("20260302110533", "RAD", "P")


def test_every_result_of_the_sr_is_in_the_message(sr: Dataset) -> None:
    conclusion = next(i.TextValue for i in walk(sr) if is_named(i, codes.CONCLUSION))
    places = ("INFERIOR-L", "INFERIOR-R", "MIDDLE-L", "MIDDLE-R", "SUPERIOR-L", "SUPERIOR-R")
    images: list[tuple[str, str, str, str, str]] = []
    for place, rating in zip(places, (1, 2, 1, 3, 1, 2), strict=True):
        images.append(("CWE", "EPVSBGRATING", place, f"EPVS{rating}", "P"))
        images.append(("NM", "EPVSPRATING", place, "0.8", "P"))
    assert observations(message_of(sr).content) == [
        ("ST", "113014", "", sr.StudyInstanceUID, "O"),
        ("ST", "SRINSTANCEUID", "", sr.SOPInstanceUID, "O"),
        ("CWE", "EPVS", "SUBJECT-RATING", codes.PRESENT.value, "P"),
        ("CWE", "EPVSBGRATINGMAX", "SUBJECT-RATING", "EPVS3", "P"),
        ("CWE", "EPVSBGRATINGMAJ", "SUBJECT-RATING", "EPVS1", "P"),
        ("NM", "EPVSPRATING", "SUBJECT-RATING", "0.8", "P"),
        ("TX", "111001", "SUBJECT-RATING", "EPVS rating, 2-D CNN", "P"),
        ("TX", "111003", "SUBJECT-RATING", "1", "P"),
        *images,
        ("CWE", "EPVSBGSEV2", "SEVERITY-3D", "EPVSMTS", "P"),
        ("NM", "EPVSPMTS", "SEVERITY-3D", "0.87", "P"),
        ("TX", "111001", "SEVERITY-3D", "EPVS severity, 3-D ResNet", "P"),
        ("TX", "111003", "SEVERITY-3D", "1", "P"),
        ("CWE", "EPVSAGREEMENT", "", "EPVSAGREE", "P"),
        ("TX", "121077", "", conclusion, "P"),
        ("TX", "INTENDEDUSE", "", INTENDED_USE.statement, "P"),
    ]
    lines = message_of(sr).content.decode().split("\r")
    assert (
        "OBX|4|CWE|EPVSBGRATINGMAX^EPVS rating, basal ganglia, highest of images^99EPVS"
        "|SUBJECT-RATING|EPVS3^EPVS rating 3 (21-40)^99EPVS||||||P"
    ) in lines
    assert (
        "OBX|6|NM|EPVSPRATING^Probability of assigned EPVS rating^99EPVS"
        "|SUBJECT-RATING|0.8|1^no units^UCUM|||||P"
    ) in lines


@pytest.mark.parametrize("make", [lambda sr: sr, not_graded], ids=["graded", "not graded"])
def test_the_structure_is_valid(make: Any, sr: Dataset, tmp_path: Path) -> None:
    """hl7apy's table of value types lacks CWE, which implementation guides for v2.5.1 use."""
    content = message_of(make(sr)).content.decode()
    parsed = parse_message(content)
    assert parsed.to_er7() + "\r" == content
    assert parsed.validate(report_file=str(tmp_path / "warnings"))
    lines = (tmp_path / "warnings").read_text().splitlines()
    warnings = {line.split(" in element")[0] for line in lines}
    assert warnings <= {
        "Warning: Value CWE not in table HL70125",
        "Warning: Value 99EPVS not in table HL70396",
        "Warning: Value UCUM not in table HL70396",
    }


def test_rating_0_is_coded_as_absent_without_flags(given: Inputs) -> None:
    content = message_of(sr_of(inputs(given.volume, ratings=(0,) * 6, p=0.000012).build())).content
    found = observations(content)
    assert ("CWE", "EPVS", "SUBJECT-RATING", codes.ABSENT.value, "P") in found
    assert ("CWE", "EPVSBGRATINGMAX", "SUBJECT-RATING", "EPVS0", "P") in found
    assert "EPVS0^EPVS rating 0 (none)^99EPVS" in content.decode()
    assert ("CWE", "EPVSBGSEV2", "SEVERITY-3D", "EPVSNTM", "P") in found
    assert ("NM", "EPVSPMTS", "SEVERITY-3D", "0.000012", "P") in found  # NM has no exponents
    assert not any(any(obx[7:11]) for obx in segments(content) if obx[0] == "OBX")


def test_a_study_that_was_not_graded_has_a_reason_and_no_result(sr: Dataset) -> None:
    content = message_of(not_graded(sr)).content
    assert field(content, "OBR", 25) == "X"
    found = observations(content)
    assert [(kind, code, status) for kind, code, _, _, status in found] == [
        ("ST", "113014", "O"),
        ("ST", "SRINSTANCEUID", "O"),
        ("CWE", "EPVSNOTGRADED", "X"),
        ("TX", "121077", "X"),
        ("TX", "INTENDEDUSE", "X"),
    ]
    assert "|NGTHICK^Slices lie too far apart^99EPVS|" in content.decode()


def test_an_sr_without_result_or_reason_fails(sr: Dataset) -> None:
    with pytest.raises(Failed):
        message_of(changed(sr, ContentSequence=[]))


def test_the_same_sr_gives_the_same_message(report: Report, sr: Dataset) -> None:
    message = message_of(sr)
    assert message_of(sr_of(report)) == message
    assert len(message.control_id) <= 20
    elsewhere = message_of(sr, Hl7Destination("192.0.2.8", 2575))
    next_revision = message_of(changed(sr, SOPInstanceUID="2.25.7"))
    assert len({m.control_id for m in (message, elsewhere, next_revision)}) == 3
    # One order, so that the receiver replaces the earlier result.
    assert field(next_revision.content, "OBR", 3) == field(message.content, "OBR", 3)


@pytest.mark.parametrize(
    ("character_set", "name", "expected"),
    [
        (
            ["", "ISO 2022 IR 87"],
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            [["Yamada", "Tarou", "A"], ["山田", "太郎", "I"], ["やまだ", "たろう", "P"]],
        ),
        (
            ["", "ISO 2022 IR 149"],
            "Hong^Gildong=洪^吉洞=홍^길동",
            [["Hong", "Gildong", "A"], ["洪", "吉洞", "I"], ["홍", "길동", "P"]],
        ),
        ("ISO_IR 144", "Люкceмбypг", [["Люкceмбypг", "", "A"]]),
    ],
)
def test_names_in_every_script(
    sr: Dataset, character_set: str | list[str], name: str, expected: list[list[str]]
) -> None:
    stored = BytesIO()
    changed(sr, SpecificCharacterSet=character_set, PatientName=name).save_as(stored)
    content = message_of(pydicom.dcmread(BytesIO(stored.getvalue()))).content
    assert names(content) == [
        [family, given_name, *[""] * 5, representation]
        for family, given_name, representation in expected
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # DICOM: family, given, middle, prefix, suffix; XPN: suffix before prefix
        ("Adams^John Robert^Quincy^Rev.^B.A. M.Div.",
         [["Adams", "John Robert", "Quincy", "B.A. M.Div.", "Rev.", "", "", "A"]]),
        ("A|B&C~D^E", [["A|B&C~D", "E", "", "", "", "", "", "A"]]),
        ("A\\F\\B", [["A\\F\\B", "", "", "", "", "", "", "A"]]),
        ("=山田", [["山田", "", "", "", "", "", "", "I"]]),
        ("", [[""]]),
    ],
)  # fmt: skip
def test_hostile_names_keep_their_components_and_the_structure(
    sr: Dataset, name: str, expected: list[list[str]]
) -> None:
    hostile = changed(sr, PatientName=name, PatientID="1|2\\3\r", AccessionNumber="A^B\r\nMSH|")
    content = message_of(hostile).content
    assert [fields[0] for fields in segments(content)[:4]] == ["MSH", "PID", "OBR", "OBX"]
    assert names(content) == expected
    assert unescaped(field(content, "PID", 3)) == "1|2\\3"
    assert unescaped(field(content, "OBR", 18)) == "A^B  MSH|"


def test_issuer_of_the_patient_id_and_time_zone_are_included_if_known(sr: Dataset) -> None:
    known = changed(sr, IssuerOfPatientID="HOSPITAL^A", TimezoneOffsetFromUTC="+0530", StudyTime="")
    content = message_of(known).content
    assert field(content, "PID", 3) == "CANARY-17^^^HOSPITAL\\S\\A"
    assert field(content, "MSH", 7) == field(content, "OBR", 22) == "20260302110533+0530"
    assert field(content, "OBR", 7) == "20260302"
