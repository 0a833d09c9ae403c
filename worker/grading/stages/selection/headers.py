"""Header reading for series selection: one file → the attributes of each of its frames.

Classic MR stores all attributes at the root of the data set, Enhanced MR in functional groups, per
frame or shared (PS3.3 C.7.6.16). Both are read into the same `Frame`, so the rules are the same.
Pixels are never read.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydicom import dcmread
from pydicom.multival import MultiValue
from pydicom.uid import UID, EnhancedMRImageStorage, MRImageStorage

from worker.grading.files import UnsafeInstance, open_instance
from worker.grading.files.checks import MAX_FRAMES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydicom.dataset import Dataset

    from core.studies import SpooledInstance

MR_CLASSES: Final = frozenset({str(MRImageStorage), str(EnhancedMRImageStorage)})

_MACROS: Final = (
    "MRImageFrameTypeSequence",
    "MRTimingAndRelatedParametersSequence",
    "MREchoSequence",
    "MRModifierSequence",
    "MRDiffusionSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
)
_KEYWORDS: Final = [
    "SOPClassUID",
    "SOPInstanceUID",
    "ImageType",
    "ComplexImageComponent",
    "AcquisitionContrast",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "RescaleSlope",
    "RescaleIntercept",
    "ScanningSequence",
    "EchoPulseSequence",
    "EchoPlanarPulseSequence",
    "InversionRecovery",
    "SequenceName",
    "PulseSequenceName",
    "EchoTrainLength",
    "EchoTime",
    "EchoNumbers",
    "RepetitionTime",
    "InversionTime",
    "DiffusionBValue",
    "DiffusionDirectionality",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "SliceThickness",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]

_NOT_MAGNITUDE: Final = frozenset(
    {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY", "MIXED", "VELOCITY MAP", "B0 MAP"}
)
_DIFFUSION_TYPES: Final = frozenset({"DIFFUSION", "ADC", "TRACEW"})
_B_VALUE_IN_NAME: Final = re.compile(r"_B\d")
"""Siemens writes the b-value into Sequence Name (``*ep_b1000t``, ``re_b0``)."""


class UnreadableHeader(Exception):
    """A file's header cannot be read; the message names the attribute, never its value."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The attributes of one slice that selection uses; None if the header lacks them."""

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    frame_number: int | None
    image_type: tuple[str, ...]
    matrix: tuple[int, int]
    """(rows, columns)"""
    photometric: str
    samples_per_pixel: int
    magnitude: bool
    spin_echo: bool
    echo_planar: bool
    inversion: bool
    diffusion: bool
    echo_time_ms: float | None
    repetition_time_ms: float | None
    echo_number: float | None
    orientation: tuple[float, ...] | None
    position_mm: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, ...] | None
    thickness_mm: float | None
    rescale: tuple[float, float]
    """(slope, intercept); (1, 0) if there is none."""

    @property
    def is_mr(self) -> bool:
        """Whether the SOP class is MR or Enhanced MR Image Storage."""
        return self.sop_class_uid in MR_CLASSES


def read_frames(instance: SpooledInstance) -> tuple[Frame, ...]:
    """Read the header of one stored file.

    Returns
    -------
    tuple of Frame
        One for a classic image, one per frame for Enhanced MR, none for an instance without pixels.

    Raises
    ------
    UnreadableHeader
        The content cannot be parsed, or contradicts itself.
    Failed
        The stored file is missing or cannot be read.
    """
    try:
        file = open_instance(instance.path)
    except UnsafeInstance as error:
        raise UnreadableHeader(str(error)) from error
    with file:
        try:
            header = dcmread(file, stop_before_pixels=True, force=True, specific_tags=_KEYWORDS)
            return tuple(_frames(header, instance))
        except UnreadableHeader:
            raise
        except Exception as error:
            # The file comes from outside: any exception of pydicom is a finding about the file,
            # and a study with one broken file must still get its verdicts.
            raise UnreadableHeader(type(error).__name__) from error


def _frames(header: Dataset, instance: SpooledInstance) -> Iterator[Frame]:
    root = _Attributes([header])
    sop_class = root.text("SOPClassUID") or instance.sop_class_uid
    if root.number("Rows") is None or root.number("Columns") is None:
        if sop_class in MR_CLASSES:
            raise UnreadableHeader("Rows or Columns missing")
        return
    if not UID(sop_class).is_valid:
        raise UnreadableHeader("SOPClassUID: not a UID")
    if sop_class != EnhancedMRImageStorage:
        if sop_class in MR_CLASSES and (root.number("NumberOfFrames") or 1) != 1:
            raise UnreadableHeader("several frames in a classic MR instance")
        yield _frame(root, instance, sop_class, None)
        return
    shared = _items(header, "SharedFunctionalGroupsSequence")
    per_frame = _items(header, "PerFrameFunctionalGroupsSequence")
    stated = root.number("NumberOfFrames")
    if len(per_frame) > MAX_FRAMES:
        raise UnreadableHeader(f"{len(per_frame)} frames (at most {MAX_FRAMES} are read)")
    if not per_frame or stated != len(per_frame):
        raise UnreadableHeader(
            f"{_figure(stated)} frames stated, functional groups for {len(per_frame)}"
        )
    common = [item for group in shared[:1] for item in _macros(group)]
    for number, group in enumerate(per_frame, start=1):
        yield _frame(_Attributes([*_macros(group), *common, header]), instance, sop_class, number)


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    return list(dataset.get(keyword) or [])


def _macros(group: Dataset) -> Iterator[Dataset]:
    for keyword in _MACROS:
        yield from _items(group, keyword)[:1]


def _figure(number: float | None) -> str:
    return "no" if number is None else f"{number:g}"


class _Attributes:
    """Attribute look-up through the data sets of one frame, the most specific one first."""

    def __init__(self, sources: list[Dataset]) -> None:
        self._sources = sources

    def _get(self, keyword: str) -> Any:
        for source in self._sources:
            try:
                value = source.get(keyword)
            except Exception as error:
                # pydicom converts values on access, and assumes that they are legal.
                raise UnreadableHeader(f"{keyword}: {type(error).__name__}") from error
            if value not in (None, ""):
                return value
        return None

    def texts(self, keyword: str) -> tuple[str, ...]:
        value = self._get(keyword)
        values = (
            value if isinstance(value, (MultiValue, list)) else [] if value is None else [value]
        )
        return tuple(str(item).strip().upper() for item in values)

    def text(self, keyword: str) -> str:
        return next(iter(self.texts(keyword)), "")

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """Values as floats; empty if absent or if one of them is not a finite number."""
        try:
            values = tuple(float(text) for text in self.texts(keyword))
        except ValueError:
            raise UnreadableHeader(f"{keyword}: not a number") from None
        return values if all(map(math.isfinite, values)) else ()

    def number(self, *keywords: str) -> float | None:
        """First value of the first attribute that has one."""
        return next((v[0] for v in map(self.numbers, keywords) if v), None)


def _frame(
    attributes: _Attributes, instance: SpooledInstance, sop_class: str, number: int | None
) -> Frame:
    # Only Enhanced MR has Frame Type, which is more specific than its Image Type.
    image_type = (number and attributes.texts("FrameType")) or attributes.texts("ImageType")
    component = attributes.text("ComplexImageComponent")
    slope, intercept = attributes.numbers("RescaleSlope"), attributes.numbers("RescaleIntercept")
    return Frame(
        path=instance.path,
        sop_instance_uid=attributes.text("SOPInstanceUID") or instance.sop_instance_uid,
        sop_class_uid=sop_class,
        frame_number=number,
        image_type=image_type,
        matrix=(int(attributes.number("Rows") or 0), int(attributes.number("Columns") or 0)),
        photometric=attributes.text("PhotometricInterpretation"),
        samples_per_pixel=int(attributes.number("SamplesPerPixel") or 1),
        magnitude=_NOT_MAGNITUDE.isdisjoint({*image_type[2:], component}),
        spin_echo=_is_spin_echo(attributes),
        echo_planar="EP" in attributes.texts("ScanningSequence")
        or attributes.text("EchoPlanarPulseSequence") == "YES",
        inversion="IR" in attributes.texts("ScanningSequence")
        or attributes.text("InversionRecovery") == "YES"
        or (attributes.number("InversionTime") or 0) > 0,
        diffusion=_is_diffusion(attributes, image_type),
        echo_time_ms=attributes.number("EffectiveEchoTime", "EchoTime"),
        repetition_time_ms=attributes.number("RepetitionTime"),
        echo_number=attributes.number("EchoNumbers"),
        orientation=_exactly(6, attributes.numbers("ImageOrientationPatient")),
        position_mm=_exactly(3, attributes.numbers("ImagePositionPatient")),
        pixel_spacing_mm=_exactly(2, attributes.numbers("PixelSpacing")),
        thickness_mm=attributes.number("SliceThickness"),
        rescale=(slope[0] if slope else 1.0, intercept[0] if intercept else 0.0),
    )


def _exactly(count: int, values: tuple[float, ...]) -> tuple[float, ...] | None:
    return values if len(values) == count else None


def _is_spin_echo(attributes: _Attributes) -> bool:
    sequence = attributes.texts("ScanningSequence")
    if not sequence:
        return attributes.text("EchoPulseSequence") == "SPIN"
    if "SE" in sequence:
        return "GR" not in sequence  # both together are GRASE
    # GE's "research mode" does not state the sequence. An echo train that is neither gradient
    # echo nor echo-planar can only be refocused by 180° pulses.
    train = attributes.number("EchoTrainLength") or 0
    return "RM" in sequence and train > 1 and {"GR", "EP"}.isdisjoint(sequence)


def _is_diffusion(attributes: _Attributes, image_type: tuple[str, ...]) -> bool:
    names = attributes.texts("SequenceName") + attributes.texts("PulseSequenceName")
    return (
        (attributes.number("DiffusionBValue") or 0) > 0
        or attributes.text("DiffusionDirectionality") not in ("", "NONE")
        or attributes.text("AcquisitionContrast") == "DIFFUSION"
        or not _DIFFUSION_TYPES.isdisjoint(image_type)
        or any(_B_VALUE_IN_NAME.search(name) for name in names)
    )
