"""Small instances that ask a parser or decoder for much more than they hold."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
)

from tests.support.builders.series_files import enhanced, t2_slices

if TYPE_CHECKING:
    from pathlib import Path

CLAIMED = 16_000
"""Rows and columns that the code streams state."""
_SEQUENCE = "<HH2sHL"
_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0)


def write_series(folder: Path, frame: bytes, syntax: str, matrix: int = 64) -> None:
    """Write an axial T2 series whose first slice has `frame` as its pixel data."""
    folder.mkdir(parents=True)
    for number, ds in enumerate(t2_slices(), start=1):
        ds.Rows = ds.Columns = matrix
        if number == 1:
            ds.PixelData, chosen = encapsulate([frame]), syntax
            ds["PixelData"].VR = "OB"
            ds["PixelData"].is_undefined_length = True
        else:
            ds.PixelData, chosen = bytes(2 * matrix * matrix), ExplicitVRLittleEndian
        _write(folder / f"{number:03}.dcm", ds, chosen)


def jpeg_2000(rows: int = CLAIMED, columns: int = CLAIMED) -> bytes:
    """A JPEG 2000 code stream of 64 × 64 pixels that states another size."""
    frame = _compressed(JPEG2000Lossless)
    size = frame.index(b"\xff\x51") + 6
    patched = bytearray(frame)
    struct.pack_into(">2L", patched, size, columns, rows)  # Xsiz, Ysiz
    struct.pack_into(">2L", patched, size + 16, columns, rows)  # XTsiz, YTsiz
    return bytes(patched)


def jpeg_ls(rows: int = CLAIMED, columns: int = CLAIMED) -> bytes:
    """A JPEG-LS code stream of 64 × 64 pixels that states another size."""
    patched = bytearray(_compressed(JPEGLSLossless))
    struct.pack_into(">2H", patched, patched.index(b"\xff\xf7") + 5, rows, columns)
    return bytes(patched)


def jpeg_lossless(rows: int = CLAIMED, columns: int = CLAIMED) -> bytes:
    """A lossless JPEG code stream (process 14) without data, of the size given."""
    table = struct.pack(
        ">HB16s17s",
        2 + 17 + 17,
        0,
        bytes([0, 1, 5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]) + b"\0\0",
        bytes(range(17)),
    )
    start = struct.pack(">HBHHB3s", 11, 16, rows, columns, 1, b"\1\x11\0")
    scan = struct.pack(">HB2s3s", 8, 1, b"\1\0", b"\1\0\0")
    return (
        b"\xff\xd8\xff\xc4" + table + b"\xff\xc3" + start + b"\xff\xda" + scan + bytes(64)
        + b"\xff\xd9"
    )  # fmt: skip


def write_deflated(path: Path, n_bytes: int) -> None:
    """Write a deflated MR instance whose data set inflates to `n_bytes` of zeros."""
    ds = t2_slices(1)[0]
    ds.PixelData = bytes(8)
    ds.add_new(0x00091010, "OB", b"")
    body = _encoded(ds)
    at = body.index(struct.pack("<HH", 0x0009, 0x1010)) + 8
    bomb = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflated = bomb.compress(body[:at] + struct.pack("<L", n_bytes))
    for _ in range(n_bytes // 2**20):
        deflated += bomb.compress(bytes(2**20))
    _write_deflated(path, ds, deflated + bomb.compress(body[at + 4 :]) + bomb.flush())


def write_many_items(path: Path, n_items: int) -> None:
    """Write a deflated Enhanced MR instance with that many empty per-frame items."""
    ds = enhanced(t2_slices())
    ds.NumberOfFrames = n_items
    ds.PerFrameFunctionalGroupsSequence = []
    body = _encoded(ds)
    at = body.index(struct.pack(_SEQUENCE, 0x5200, 0x9230, b"SQ", 0, 0))
    head = struct.pack(_SEQUENCE, 0x5200, 0x9230, b"SQ", 0, len(_ITEM) * n_items)
    body = body[:at] + head + _ITEM * n_items + body[at + len(head) :]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    _write_deflated(path, ds, deflate.compress(body) + deflate.flush())


def write_many_elements(path: Path, n_elements: int, number: int) -> None:
    """Write an MR instance with that many private elements in one sequence item."""
    ds = t2_slices(1)[0]
    ds.SOPInstanceUID = f"2.25.2.{number}"
    item = Dataset()
    for k in range(n_elements):
        item.add_new(0x00110000 + (k // 0xF000) * 0x20000 + 0x1000 + k % 0xE000, "US", 1)
    ds.ReferencedImageSequence = [item]
    _write(path, ds, ExplicitVRLittleEndian)


def _compressed(syntax: str) -> bytes:
    ds = t2_slices(1)[0]
    ds.Rows = ds.Columns = 64
    ds.PixelData = np.arange(64 * 64, dtype="<u2").tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.compress(syntax, generate_instance_uid=False)
    return get_frame(ds.PixelData, 0, number_of_frames=1)


def _encoded(ds: Dataset) -> bytes:
    file = BytesIO()
    dcmwrite(file, ds, implicit_vr=False, little_endian=True)
    return file.getvalue()


def _write(path: Path, ds: Dataset, syntax: str) -> None:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.save_as(path, enforce_file_format=True)


def _write_deflated(path: Path, ds: Dataset, deflated: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    empty = Dataset()
    empty.SOPClassUID, empty.SOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    _write(path, empty, DeflatedExplicitVRLittleEndian)
    written = path.read_bytes()
    start = written.index(b"DICM") + 4
    length = 12 + struct.unpack_from("<L", written, start + 8)[0]
    path.write_bytes(written[: start + length] + deflated)
