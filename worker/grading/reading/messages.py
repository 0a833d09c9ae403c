"""What crosses from the process that reads a study to the worker.

The reading process has parsed foreign bytes, so its message is not trusted to name what to call:
only the records listed here can be unpickled.
"""

from __future__ import annotations

import io
import pickle
from enum import Enum
from typing import Any, Final

from pydicom.dataset import Dataset

from core.errors import Failed
from worker.grading.records import Reading

_RECORDS: Final = frozenset(
    {
        ("core.reasons", "Reason"),
        ("core.results", "SeriesVerdict"),
        ("datetime", "timedelta"),
        ("datetime", "timezone"),
        ("pathlib", "PosixPath"),
        ("pathlib", "Path"),
        *(
            ("worker.grading.records", name)
            for name in (
                *("Reading", "Selection", "SelectedSeries", "SliceLocation"),
                *("Source", "SourceImage", "StudyHeader"),
            )
        ),
        (__name__, "dataset_from_json"),
    }
)


def dataset_from_json(text: str) -> Dataset:
    """Rebuild a data set from the DICOM JSON model (PS3.18 annex F)."""
    return Dataset.from_json(text)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Dataset):
            return dataset_from_json, (value.to_json(),)
        if isinstance(value, Enum):  # by its value: some releases of Python look it up by name
            return type(value), (value.value,)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _RECORDS:
            raise pickle.UnpicklingError("not a record of a reading")
        return super().find_class(module, name)


def pack(reading: Reading, shape: tuple[int, ...]) -> bytes:
    """Encode a reading without its voxels, and the shape of these."""
    return _dump((reading, shape))


def pack_failure(error: Failed) -> bytes:
    """Encode an error that `read_study` raised."""
    return _dump((error.code, error.message, error.remedy))


def unpack(message: bytes) -> tuple[Reading, tuple[int, ...]]:
    """Decode a message.

    Raises
    ------
    Failed
        The error that it contains, or ``reading-invalid``: it is no message of a reading.
    """
    try:
        content = _Unpickler(io.BytesIO(message)).load()
    except Exception:  # noqa: BLE001 - whatever the reading process wrote
        content = None
    match content:
        case (Reading() as reading, tuple(shape)) if all(isinstance(n, int) for n in shape):
            return reading, shape
        case (str(code), str(text), str(remedy)):
            raise Failed(code, text, remedy)
    raise Failed("reading-invalid", "The reading process sent no valid message.")


def _dump(content: object) -> bytes:
    file = io.BytesIO()
    _Pickler(file).dump(content)
    return file.getvalue()
