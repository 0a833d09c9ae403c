"""Size of a compressed image as its own code stream states it, read without decoding.

A decoder allocates what the code stream says, not what the DICOM header says: a few hundred bytes
can ask for gigabytes.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from worker.grading.files.checks import UnsafeInstance

_JPEG: Final = frozenset(
    {
        *(JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1),
        *(JPEGLSLossless, JPEGLSNearLossless),
    }
)
_JPEG_2000: Final = frozenset(
    {
        *(JPEG2000, JPEG2000Lossless, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL),
    }
)
CHECKED: Final = _JPEG | _JPEG_2000
"""Transfer syntaxes whose code streams state a size of their own, as far as they are decoded."""

MAX_TILES: Final = 1024
"""Of a JPEG 2000 image; the decoder allocates for each of them."""

# JPEG markers (ISO/IEC 10918-1 B.1.1.3; 14495-1 for JPEG-LS)
_SOI: Final = b"\xff\xd8"
_SOF: Final = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_SOS: Final = 0xDA
# JPEG 2000 (ISO/IEC 15444-1 A.5.1): SOC and SIZ are the first markers of a code stream.
_SOC_AND_SIZ: Final = b"\xff\x4f\xff\x51"


class Size(NamedTuple):
    """Rows, columns and components of a code stream."""

    rows: int
    columns: int
    components: int


def check_code_stream(
    frame: bytes, transfer_syntax_uid: str, *, rows: int, columns: int, samples: int
) -> None:
    """Hold the size of a code stream against that of the DICOM header.

    Parameters
    ----------
    frame : bytes
        One encoded frame, in one of the syntaxes `CHECKED`.
    transfer_syntax_uid : str
    rows, columns, samples : int
        Rows, Columns and Samples per Pixel of the data set.

    Raises
    ------
    UnsafeInstance
        They differ, or the code stream does not state its size.
    """
    try:
        size = _jpeg_2000(frame) if transfer_syntax_uid in _JPEG_2000 else _jpeg(frame)
    except (struct.error, IndexError) as error:
        raise UnsafeInstance("the code stream ends inside its header") from error
    if size != (rows, columns, samples):
        raise UnsafeInstance(
            f"code stream of {size.rows} × {size.columns} × {size.components}, header says "
            f"{rows} × {columns} × {samples}"
        )


def _jpeg(frame: bytes) -> Size:
    """Size in the frame header; a decoder takes the last one before the scan, so all must agree."""
    if not frame.startswith(_SOI):
        raise UnsafeInstance("not a JPEG code stream")
    position, sizes = 2, set()
    while position < len(frame):
        if frame[position] != 0xFF:
            raise UnsafeInstance("a JPEG marker is missing")
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        position += 2
        if marker in _WITHOUT_LENGTH:
            continue
        if marker == _SOS:
            break
        (length,) = struct.unpack_from(">H", frame, position)
        if length < 2:
            raise UnsafeInstance("a JPEG segment without a length")
        if marker in _SOF:
            _, rows, columns, components = struct.unpack_from(">BHHB", frame, position + 2)
            sizes.add(Size(rows, columns, components))
        position += length
    if len(sizes) != 1:
        raise UnsafeInstance("the code stream does not state one size")
    return sizes.pop()


def _jpeg_2000(frame: bytes) -> Size:
    # Decoders accept the JP2 file format too, which wraps the code stream in boxes.
    start = frame.find(_SOC_AND_SIZ)
    if start < 0:
        raise UnsafeInstance("not a JPEG 2000 code stream")
    x, y, x0, y0, tile_x, tile_y, tile_x0, tile_y0, components = struct.unpack_from(
        ">8LH", frame, start + 8
    )
    if not (tile_x and tile_y and tile_x0 <= x0 < x and tile_y0 <= y0 < y):
        raise UnsafeInstance("the code stream has no valid size")
    n_tiles = -(-(x - tile_x0) // tile_x) * -(-(y - tile_y0) // tile_y)
    if n_tiles > MAX_TILES:
        raise UnsafeInstance(f"{n_tiles} tiles (at most {MAX_TILES})")
    return Size(y - y0, x - x0, components)
