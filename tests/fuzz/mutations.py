"""Changes to DICOM files and other bytes, for fuzzing; all by one source of chance."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

if TYPE_CHECKING:
    import random

_NUMBERS: Final = (0, 1, 2, 7, 8, 15, 16, 17, 64, 255, 256, 4095, 4097, 32767, 32768, 65535)
_LENGTHS: Final = (0, 1, 2, 7, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
_TEXTS: Final = (
    *("", "0", "-1", "1e308", "nan", "inf", "1\\2", "1e-300", "\\\\\\", "9" * 64, "X" * 20_000),
    *("\x1b[31m", "\udcff", "ä", "ISO 2022 IR 87", "1.2.840.10008.1.2.1", "."),
)
_SHORTS: Final = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("SamplesPerPixel", "PlanarConfiguration"),
)
_STRINGS: Final = (
    *("NumberOfFrames", "RescaleSlope", "RescaleIntercept", "PixelSpacing", "SliceThickness"),
    *("ImagePositionPatient", "ImageOrientationPatient", "EchoTime", "RepetitionTime"),
    *("PhotometricInterpretation", "SpecificCharacterSet", "PatientID", "PatientName"),
    *("StudyDate", "TimezoneOffsetFromUTC", "ImageType", "SOPClassUID", "PatientSex"),
)
_SEQUENCES: Final = (
    *("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"),
    *("PixelMeasuresSequence", "PlanePositionSequence", "ReferencedImageSequence"),
)


def damage(content: bytes, chance: random.Random) -> bytes:
    """Flip, overwrite, insert, repeat or remove some bytes anywhere."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        at = chance.randrange(len(data))
        match chance.randrange(6):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.randrange(256)
            case 2:
                data[at:at] = chance.randbytes(chance.choice((1, 2, 8, 64)))
            case 3:
                size = chance.choice((1, 2, 8, 64, 1024))
                data[at:at] = data[at : at + size] * chance.choice((1, 1, 100))
            case 4:
                del data[at : at + chance.choice((1, 2, 8, 64, 4096))]
            case _:
                value = chance.choice(_LENGTHS)
                data[at : at + 4] = struct.pack(chance.choice("<>") + "L", value)
    return bytes(data)


def change_bytes(content: bytes, chance: random.Random) -> bytes:
    """Change the bytes of a Part 10 file: its header, a length, its pixels or its end."""
    match chance.randrange(6):
        case 0:
            return damage(content, chance)
        case 1:  # mostly the header
            cut = min(len(content), chance.choice((512, 2048, 8192)))
            return damage(content[:cut], chance) + content[cut:]
        case 2:  # a length: VRs are easily found
            data = bytearray(content)
            places = [
                place
                for vr in (b"SQ\0\0", b"OW\0\0", b"OB\0\0", b"UN\0\0")
                if (place := data.find(vr, chance.randrange(min(len(data), 8192)))) > 0
            ]
            if places:
                at = chance.choice(places) + 4
                data[at : at + 4] = struct.pack("<L", chance.choice(_LENGTHS))
            return bytes(data)
        case 3:  # the pixels, where a code stream begins
            at = content.find(b"\xfe\xff\x00\xe0", 512)
            at = at if at > 0 else content.find(b"\xe0\x7f\x10\x00")
            return content[:at] + damage(content[at : at + 256], chance) + content[at + 256 :]
        case 4:
            return content[: chance.randrange(len(content))]
        case _:  # another transfer syntax than the content is in
            old = content[140:400]
            at = old.find(b"1.2.840.10008.1.2")
            other = chance.choice((b".4.90", b".4.80", b".4.70", b".5", b".1.99", b".2"))
            new = b"1.2.840.10008.1.2" + other + b"\0"
            return content[: 140 + at] + new + content[140 + at + len(new) :]


def change_values(content: bytes, syntax: str, chance: random.Random) -> bytes:
    """Decode a file, change some attributes, and write it in a transfer syntax."""
    ds = dcmread(BytesIO(content))
    if chance.random() < 0.7:
        if ds.file_meta.TransferSyntaxUID.is_compressed:
            ds.decompress()
        if UID(syntax).is_encapsulated:
            ds.compress(UID(syntax), generate_instance_uid=False)
        else:
            ds.file_meta.TransferSyntaxUID = UID(syntax)
            if syntax == "1.2.840.10008.1.2.2":
                ds["PixelData"].VR = "OW"
    for _ in range(chance.randint(0, 3)):
        _change_value(ds, chance)
    file = BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _change_value(ds: Dataset, chance: random.Random) -> None:
    value: Any
    match chance.randrange(5):
        case 0 | 1:
            setattr(ds, chance.choice(_SHORTS), chance.choice(_NUMBERS))
        case 2:
            name = chance.choice(_STRINGS)
            value = chance.choice(_TEXTS)
            ds.add_new(name, "UN", value.encode("utf-8", "surrogatepass"))
        case 3:
            name = chance.choice(_SEQUENCES)
            items = [Dataset() for _ in range(chance.choice((0, 1, 3, 300, 3_000)))]
            setattr(ds, name, items)
        case _:
            inner = Dataset()
            for _ in range(chance.choice((3, 20, 40))):
                outer = Dataset()
                setattr(outer, chance.choice(_SEQUENCES), [inner])
                inner = outer
            ds.update(inner)
