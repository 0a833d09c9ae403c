"""Generates the tables of docs/conformance.md from the code.

``python -m tests.conformance.statement`` updates the page.
"""

from __future__ import annotations

import re
import tempfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.multival import MultiValue
from pydicom.sr.coding import Code
from pydicom.uid import UID
from pynetdicom import sop_class as pynetdicom_classes

from core import commitment
from core.results import ObjectKind, SRClass
from core.settings import Settings
from receiver import admission
from receiver.contexts import TRANSFER_SYNTAXES, supported_contexts
from receiver.listener import REQUEST_TIMEOUT_S
from receiver.negotiation import MAXIMUM_LENGTH
from receiver.spool import IMPLEMENTATION_CLASS_UID
from receiver.status import Status
from tests.support.builders.sources import classic, inputs, not_graded, refused, superseding
from tests.support.paths import ROOT
from worker.delivery.dicom_scu import STUDY_ROOT_FIND
from worker.delivery.statuses import Response, interpret_store
from worker.grading.stages.report import codes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pydicom.dataset import Dataset

PAGE = ROOT / "docs" / "conformance.md"
_VERIFICATION = str(pynetdicom_classes.Verification)  # type: ignore[attr-defined]  # made on import
_BLOCK = re.compile(r"(<!-- ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_MEANING = {
    Response.STORED: "stored; a warning is recorded as an audit event",
    Response.TRY_LATER: "sent again later",
    Response.REFUSED: "parked until an operator intervenes",
    Response.UNKNOWN: "checked by C-FIND",
}
_COPIED = {
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber",
    "ReferringPhysicianName", "SpecificCharacterSet", "FrameOfReferenceUID",
    "TimezoneOffsetFromUTC", "PatientIdentityRemoved", "DeidentificationMethod",
}  # fmt: skip
_BULKY = ("SQ", "OB", "OW", "UI", "DA", "TM")
_VARIES = {
    "StationName", "DeviceSerialNumber", "InstanceNumber", "Rows", "Columns", "PatientOrientation",
    "NumberOfFrames", "ImageComments",
}  # fmt: skip
_FEW = 2
"""Attributes with more values than this are listed without them."""
_CLASS_NAMES = {
    ObjectKind.STRUCTURED_REPORT: "SR (Comprehensive SR, Comprehensive 3D SR)",
    ObjectKind.SECONDARY_CAPTURE: "Secondary Capture",
    ObjectKind.PARAMETRIC_MAP: "Parametric Map",
}


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def _class(uid: str) -> list[str]:
    return [UID(uid).name, f"`{uid}`"]


def _sent_classes(objects: dict[ObjectKind, list[Dataset]]) -> list[str]:
    return sorted({str(ds.SOPClassUID) for made in objects.values() for ds in made})


def _overview(objects: dict[ObjectKind, list[Dataset]]) -> str:
    received = {str(c.abstract_syntax) for c in supported_contexts("refuse")}
    user = {*_sent_classes(objects), STUDY_ROOT_FIND, commitment.SOP_CLASS_UID, _VERIFICATION}
    storage = received - {_VERIFICATION, commitment.SOP_CLASS_UID}
    rows = [
        [
            *_class(uid),
            "yes" if uid in user else "no",
            "yes" if uid in storage | {_VERIFICATION} else "no",
        ]
        for uid in sorted(received | user, key=lambda uid: (UID(uid).name, uid))
    ]
    return _table(["SOP class", "UID", "SCU", "SCP"], rows)


def _receiver_classes() -> str:
    taken = supported_contexts("accept")
    basic = supported_contexts("refuse")
    rows = [
        [
            *_class(str(c.abstract_syntax)),
            "reports only, as SCU" if c.abstract_syntax == commitment.SOP_CLASS_UID else "SCP",
        ]
        for c in basic
    ]
    return _table(["SOP class", "UID", "role"], rows) + (
        f"\nWith `EPVS_OTHER_CLASSES=accept` also the other {len(taken) - len(basic)} storage "
        "classes that pynetdicom knows.\n"
    )


def _receiver_policies() -> str:
    fields = Settings.model_fields
    return _table(
        ["policy", "value"],
        [
            [
                "associations at once",
                f"{fields['max_associations'].default} (`EPVS_MAX_ASSOCIATIONS`)",
            ],
            ["of one address", "half of these (`EPVS_MAX_ASSOCIATIONS_PER_CALLER`)"],
            ["maximum PDU", f"{MAXIMUM_LENGTH} bytes"],
            ["wait for an A-ASSOCIATE-RQ", f"{REQUEST_TIMEOUT_S:g} s"],
            [
                "wait for the next message",
                f"{fields['network_timeout_s'].default:g} s (`EPVS_NETWORK_TIMEOUT_S`)",
            ],
            [
                "wait for something to store",
                f"{fields['idle_timeout_s'].default:g} s (`EPVS_IDLE_TIMEOUT_S`)",
            ],
            ["implementation class UID", f"`{IMPLEMENTATION_CLASS_UID}`"],
            ["application context", "`1.2.840.10008.3.1.1.1`"],
        ],
    )


def _receiver_rejections() -> str:
    refusals = [v for v in vars(admission).values() if isinstance(v, admission.Refusal)]
    kinds = {1: "permanent", 2: "transient"}
    return _table(
        ["result", "source", "reason", "when"],
        [
            [kinds[r.result], r.source, r.diagnostic, r.reason.replace("-", " ")]
            for r in sorted(refusals, key=lambda r: (r.result, r.source, r.diagnostic))
        ],
    )


def _receiver_statuses() -> str:
    return _table(
        ["status", "meaning"],
        [[f"`0x{s:04X}`", s.name.lower().replace("_", " ")] for s in sorted(Status)],
    )


def _delivery_classes(objects: dict[ObjectKind, list[Dataset]]) -> str:
    little_endian = "Implicit and Explicit VR Little Endian"
    others = {
        STUDY_ROOT_FIND: little_endian,
        commitment.SOP_CLASS_UID: little_endian,
        _VERIFICATION: "pynetdicom's default, uncompressed",
    }
    rows = [
        *([*_class(uid), "Explicit VR Little Endian"] for uid in _sent_classes(objects)),
        *([*_class(str(uid)), syntaxes] for uid, syntaxes in others.items()),
    ]
    return _table(["SOP class", "UID", "transfer syntax"], rows)


def _delivery_statuses() -> str:
    meanings = [interpret_store(status) for status in range(0x10000)]
    rows, start = [], 0
    for status in range(1, 0x10001):
        if status == 0x10000 or meanings[status] is not meanings[start]:
            span = f"`0x{start:04X}`" + (f" – `0x{status - 1:04X}`" if status - 1 > start else "")
            if meanings[start] is not Response.REFUSED:
                rows.append([span, _MEANING[meanings[start]]])
            start = status
    rows += [["any other", _MEANING[Response.REFUSED]], ["no response", _MEANING[Response.UNKNOWN]]]
    return _table(["status", "what it means for the object"], rows)


def _attributes(objects: dict[ObjectKind, list[Dataset]]) -> str:
    text = ""
    for kind, made in objects.items():
        tags = sorted({element.tag for ds in made for element in ds})
        rows = []
        for tag in tags:
            keyword = keyword_for_tag(tag)
            notes = ["copied"] if keyword in _COPIED else []
            if not all(tag in ds for ds in made):
                notes.append("condition")
            values = {_text(ds[tag].value) for ds in made if tag in ds and ds[tag].VR not in _BULKY}
            is_listed = 0 < len(values) <= _FEW and keyword not in _COPIED | _VARIES
            constant = " or ".join(sorted(values)) if is_listed else ""
            rows.append(
                [
                    f"({tag.group:04X},{tag.element:04X})",
                    keyword,
                    dictionary_VR(tag),
                    constant or ", ".join(notes),
                ]
            )
        text += (
            f"**{_CLASS_NAMES[kind]}**\n\n"
            + _table(["tag", "attribute", "VR", "value"], rows)
            + "\n"
        )
    return text.removesuffix("\n")


def _text(value: object) -> str:
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)


def _codes() -> str:
    found: dict[str, str] = {}

    def note(value: object) -> None:
        if isinstance(value, Code) and value.scheme_designator == codes.SCHEME:
            found[value.value] = value.meaning
        elif isinstance(value, dict):
            for each in value.values():
                note(each)
        elif isinstance(value, tuple) and not isinstance(value, Code):
            for each in value:
                note(each)

    for value in vars(codes).values():
        note(value)
    return _table(["code value", "code meaning"], [[f"`{v}`", m] for v, m in found.items()])


def _build_objects() -> dict[ObjectKind, list[Dataset]]:
    """Build every kind of object from a source with all attributes and from one with very few."""
    made: dict[ObjectKind, list[Dataset]] = {kind: [] for kind in _CLASS_NAMES}
    with tempfile.TemporaryDirectory() as folder:
        for name, edit in (("plain", lambda ds: None), ("rich", _enrich), ("bare", _strip)):
            path = Path(folder) / name
            path.mkdir()
            given = inputs(classic(path, edit))
            if name == "rich":
                given = superseding(given, given.build())
            refusal = not_graded(given.study, refused(given.volume.series.series_uid))
            for sr_class in SRClass:
                graded = given.build(sr_class, parametric_map=True)
                for item in (*graded.objects, *refusal.objects):
                    made[item.kind].append(pydicom.dcmread(BytesIO(item.content)))
    return made


def _enrich(ds: Dataset) -> None:
    ds.IssuerOfPatientID, ds.TimezoneOffsetFromUTC = "HOSPITAL", "+0100"
    ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", "a method"


def _strip(ds: Dataset) -> None:
    for keyword in ("SpecificCharacterSet", "StudyDescription", "FrameOfReferenceUID"):
        del ds[keyword]


Objects = dict[ObjectKind, list["Dataset"]]
BLOCKS: dict[str, Callable[[Objects], str]] = {
    "overview": _overview,
    "receiver-classes": lambda _: _receiver_classes(),
    "receiver-policies": lambda _: _receiver_policies(),
    "receiver-rejections": lambda _: _receiver_rejections(),
    "receiver-syntaxes": lambda _: _table(
        ["transfer syntax", "UID"], [_class(str(uid)) for uid in TRANSFER_SYNTAXES]
    ),
    "receiver-statuses": lambda _: _receiver_statuses(),
    "delivery-classes": _delivery_classes,
    "delivery-statuses": lambda _: _delivery_statuses(),
    "attributes": _attributes,
    "codes": lambda _: _codes(),
}
"""Generator of the text between the mark of this name and the next end mark."""


def render(page: str) -> str:
    """Return `page` with every table regenerated."""
    objects = _build_objects()
    return _BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]](objects)}{match[4]}", page)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
