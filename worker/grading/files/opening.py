"""Opens a stored instance for a parser, after the checks that need no parser."""

from __future__ import annotations

import mmap
import zlib
from contextlib import ExitStack, closing, contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO, Final

from pydicom.encaps import generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from core.errors import Failed
from worker.grading.files.checks import UnsafeInstance, check_size
from worker.grading.files.codestream import CHECKED, check_code_stream
from worker.grading.files.structure import read_file_meta, walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Real instances shrink to a half or a third; empty ones to a thousandth.
_MAX_INFLATION: Final = 64
_ALWAYS_INFLATED: Final = 16 * 1024 * 1024
_MAX_INFLATED: Final = 160 * 1024 * 1024


def open_instance(path: Path) -> BinaryIO:
    """Open the Part 10 file of an instance; a deflated data set is inflated.

    A file without File Meta Information, which the receiver never writes, is opened unchecked.

    Raises
    ------
    UnsafeInstance
        It has more elements than any real instance, or inflates to more bytes.
    Failed
        ``spool-unreadable``: the file is missing or cannot be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise Failed(
            "spool-unreadable", f"Stored instance cannot be opened ({type(error).__name__})."
        ) from error
    with ExitStack() as on_error:
        on_error.enter_context(file)
        checked = _checked(file)
        on_error.pop_all()  # it is the caller's to close now
    return checked


def check_pixels(file: BinaryIO) -> None:
    """Check the size of an opened instance's frames, as header and code streams state it.

    Raises
    ------
    UnsafeInstance
        It is over a limit (`checks.check_size`), or header and code stream differ
        (`codestream.check_code_stream`).
    """
    with _content(file) as data:
        meta = read_file_meta(data)
        if meta is None:
            return
        syntax, start = meta
        found = walk(data, start, syntax)
    check_size(found.n_frames, found.rows, found.columns, found.samples)
    if syntax not in CHECKED or found.pixel_data is None:
        return
    file.seek(found.pixel_data)
    for frame in generate_frames(file, number_of_frames=found.n_frames):
        check_code_stream(
            frame, syntax, rows=found.rows, columns=found.columns, samples=found.samples
        )


def _checked(file: BinaryIO) -> BinaryIO:
    with closing(_mapped(file)) as data:
        meta = read_file_meta(data)
        if meta is None:
            return file
        syntax, start = meta
        if syntax != DeflatedExplicitVRLittleEndian:
            walk(data, start, syntax)
            return file
        head = _as_inflated(data[:start])
        inflated = _inflate(data[start:])
    file.close()
    walk(inflated, 0, ExplicitVRLittleEndian)
    return BytesIO(head + inflated)


@contextmanager
def _content(file: BinaryIO) -> Iterator[memoryview | mmap.mmap]:
    if isinstance(file, BytesIO):
        with file.getbuffer() as view:
            yield view
    else:
        with closing(_mapped(file)) as data:
            yield data


def _mapped(file: BinaryIO) -> mmap.mmap:
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:  # an empty file cannot be mapped
        raise UnsafeInstance("an empty file") from error


def _inflate(deflated: bytes) -> bytes:
    limit = min(max(_ALWAYS_INFLATED, _MAX_INFLATION * len(deflated)), _MAX_INFLATED)
    try:
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, limit + 1)
    except zlib.error as error:
        raise UnsafeInstance("cannot be inflated") from error
    if len(inflated) > limit:
        raise UnsafeInstance(f"{len(deflated)} bytes that inflate to more than {limit}")
    return inflated


def _as_inflated(head: bytes) -> bytes:
    """File Meta Information with Explicit VR Little Endian, padded to the length it had."""
    old = DeflatedExplicitVRLittleEndian.encode()
    return head.replace(old, ExplicitVRLittleEndian.encode().ljust(len(old), b"\0"))
