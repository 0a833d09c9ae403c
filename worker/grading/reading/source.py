"""Attributes that report objects copy from the headers of the study.

Only the attributes named here are copied, and each is made valid first: real headers contain empty,
missing and malformed values, and a report must be valid all the same. Attributes that identify the
patient and the study are copied verbatim and never repaired.
"""

from __future__ import annotations

import math
import re
import warnings
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

import pydicom
from pydicom.charset import convert_encodings, encode_string
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.valuerep import DA, TM

from worker.grading.files import open_instance
from worker.grading.records import Source, SourceImage, StudyHeader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from core.studies import ClosedStudy
    from worker.grading.records import SelectedSeries

_DATE: Final = re.compile(r"\d{8}")
_TIME: Final = re.compile(r"\d\d(\d\d(\d\d(\.\d{1,6})?)?)?")
_UTC_OFFSET: Final = re.compile(r"[+-]\d{4}")
_LONG_STRING: Final = 64
"""Longest value of VR LO, in characters (PS3.5 section 6.2)."""


def read_study_header(study: ClosedStudy) -> StudyHeader | None:
    """Read patient and study from the first readable instance.

    Parameters
    ----------
    study : ClosedStudy
        Its instances, of any SOP class, are tried in the order of their SOP Instance UIDs.

    Returns
    -------
    StudyHeader or None
        None if no instance of the study can be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `read_source`
        for instance in sorted(study.instances, key=lambda i: i.sop_instance_uid):
            try:
                header = _read(instance.path)
                if _value(header, "StudyInstanceUID") == study.study_uid:
                    return StudyHeader(
                        _patient_and_study(header, study.study_uid), _utc_offset(header)
                    )
            except Exception:  # noqa: BLE001, S112 - foreign bytes may raise anything
                continue
    return None


def read_source(series: SelectedSeries) -> Source:
    """Read the headers of a series' slices.

    Parameters
    ----------
    series : SelectedSeries
        Its slices give the paths of the Part 10 files.
    """
    with warnings.catch_warnings():
        # pydicom's warnings about malformed values quote the values: patient data in a log.
        warnings.simplefilter("ignore")
        headers = {
            path: _read(path) for path in dict.fromkeys(location.path for location in series.slices)
        }
        instances = {location.sop_instance_uid: location for location in series.slices}
        first = headers[series.slices[0].path]
        return Source(
            images=tuple(
                SourceImage(
                    sop_class_uid=location.sop_class_uid,
                    sop_instance_uid=uid,
                    rows=int(_number(headers[location.path], "Rows") or 0),
                    columns=int(_number(headers[location.path], "Columns") or 0),
                    slice_thickness_mm=_slice_thickness(headers[location.path]),
                    position_mm=location.position_mm if location.frame_number is None else None,
                )
                for uid, location in instances.items()
            ),
            frame_of_reference_uid=str(_value(first, "FrameOfReferenceUID")) or None,
            patient_and_study=_patient_and_study(first, series.study_uid),
            utc_offset=_utc_offset(first),
        )


def _read(path: Path) -> Dataset:
    with open_instance(path) as file:
        return pydicom.dcmread(file, stop_before_pixels=True)


def _value(header: Dataset, keyword: str) -> Any:
    """Return an attribute's value; an empty string if it is absent, empty or unreadable."""
    try:
        value = header.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom decodes values on access, and may raise anything
        return ""
    return "" if value is None else value


def _number(header: Dataset, keyword: str) -> float | None:
    """Return an attribute's only number; None if it is absent or not one finite number."""
    try:
        number = float(_value(header, keyword))
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _first_item(header: Dataset, keyword: str) -> Dataset:
    """Return the first item of a sequence; an empty data set if there is none."""
    items = _value(header, keyword)
    return items[0] if isinstance(items, DicomSequence) and len(items) else Dataset()


def _matching(header: Dataset, keyword: str, form: re.Pattern[str], kind: Any) -> str:
    """Return a date or time; an empty string if it is malformed (Type 2: may be empty)."""
    text = str(_value(header, keyword)).strip()
    try:
        kind(text)
    except ValueError:
        return ""
    return text if form.fullmatch(text) else ""


def _slice_thickness(header: Dataset) -> float | None:
    shared = _first_item(header, "SharedFunctionalGroupsSequence")
    measures = _first_item(shared, "PixelMeasuresSequence")
    return _number(measures, "SliceThickness") or _number(header, "SliceThickness")


def _utc_offset(header: Dataset) -> timezone | None:
    text = str(_value(header, "TimezoneOffsetFromUTC")).strip()
    if not _UTC_OFFSET.fullmatch(text):
        return None
    try:
        zone = datetime.strptime(text, "%z").tzinfo
    except ValueError:  # 24 hours or more
        return None
    return zone if isinstance(zone, timezone) else None


def _patient_and_study(header: Dataset, study_uid: str) -> Dataset:
    """Collect the attributes that every report object shares, valid and encodable."""
    taken = Dataset()
    taken.StudyInstanceUID = study_uid
    for keyword in (
        "PatientName",
        "PatientID",
        "AccessionNumber",
        "StudyID",
        "ReferringPhysicianName",
    ):
        setattr(taken, keyword, _value(header, keyword))
    taken.PatientBirthDate = _matching(header, "PatientBirthDate", _DATE, DA)
    taken.StudyDate = _matching(header, "StudyDate", _DATE, DA)
    taken.StudyTime = _matching(header, "StudyTime", _TIME, TM)
    # PS3.3 C.7.1.1 allows M, F and O; scanners also write U, which every validator refuses.
    sex = str(_value(header, "PatientSex")).strip()
    taken.PatientSex = sex if sex in ("M", "F", "O") else ""

    for keyword in ("IssuerOfPatientID", "StudyDescription"):
        if text := str(_value(header, keyword)):
            setattr(taken, keyword, text[:_LONG_STRING])
    method = _value(header, "DeidentificationMethod")
    if str(_value(header, "PatientIdentityRemoved")) == "YES" and method:
        taken.PatientIdentityRemoved = "YES"
        taken.DeidentificationMethod = method
    if _utc_offset(header):
        taken.TimezoneOffsetFromUTC = str(header.TimezoneOffsetFromUTC).strip()

    if character_set := _character_set(taken, header):
        taken.SpecificCharacterSet = character_set
    return taken


def _character_set(texts: Dataset, header: Dataset) -> str | Sequence[str]:
    """Return the source's character set if it can encode `texts`, otherwise one that can."""
    text = "".join(str(element.value) for element in texts)
    declared = _value(header, "SpecificCharacterSet")
    if not declared:
        # Without a declaration pydicom decodes bytes above 127 as Latin-1, so declare that.
        return "" if text.isascii() else "ISO_IR 100"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            for character in set(text):
                encode_string(character, convert_encodings(declared))
        except (LookupError, UnicodeError, UserWarning):
            return "ISO_IR 192"
    return declared
