"""Sizes read from code streams."""

from __future__ import annotations

import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from tests.support.builders import costly_instances as costly
from worker.grading.files.checks import UnsafeInstance
from worker.grading.files.codestream import check_code_stream

STREAMS = [
    (costly.jpeg_lossless, JPEGLosslessSV1),
    (costly.jpeg_2000, JPEG2000Lossless),
    (costly.jpeg_ls, JPEGLSLossless),
]


@pytest.mark.parametrize(("make", "syntax"), STREAMS)
def test_the_size_that_the_header_states_passes(make: object, syntax: str) -> None:
    assert callable(make)
    check_code_stream(make(64, 48), syntax, rows=64, columns=48, samples=1)


@pytest.mark.parametrize(("make", "syntax"), STREAMS)
@pytest.mark.parametrize("stated", [(65, 48, 1), (64, 49, 1), (64, 48, 3)])
def test_any_other_size_is_refused(make: object, syntax: str, stated: tuple[int, int, int]) -> None:
    assert callable(make)
    rows, columns, samples = stated
    with pytest.raises(UnsafeInstance, match="code stream of 64 × 48 × 1"):
        check_code_stream(make(64, 48), syntax, rows=rows, columns=columns, samples=samples)


@pytest.mark.parametrize(("make", "syntax"), STREAMS)
def test_a_code_stream_cut_anywhere_in_its_header_is_refused(make: object, syntax: str) -> None:
    assert callable(make)
    frame = make(64, 48)
    for length in range(12):
        with pytest.raises(UnsafeInstance):
            check_code_stream(frame[:length], syntax, rows=64, columns=48, samples=1)


def test_two_frame_headers_are_refused() -> None:
    """Decoders take the last; which one counts must not be a matter of opinion."""
    small, large = costly.jpeg_lossless(64, 48), costly.jpeg_lossless(16_000, 16_000)
    header = large[2 : large.index(b"\xff\xda")]
    frame = small[:2] + header + small[2:]
    with pytest.raises(UnsafeInstance, match="does not state one size"):
        check_code_stream(frame, JPEGLosslessSV1, rows=64, columns=48, samples=1)


def test_tiles_are_limited() -> None:
    frame = bytearray(costly.jpeg_2000(64, 48))
    at = frame.index(b"\xff\x51") + 6 + 16
    frame[at : at + 8] = b"\0\0\0\1\0\0\0\1"
    with pytest.raises(UnsafeInstance, match="3072 tiles"):
        check_code_stream(bytes(frame), JPEG2000Lossless, rows=64, columns=48, samples=1)
