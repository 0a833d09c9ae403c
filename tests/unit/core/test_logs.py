"""Each record is one line, without text from other libraries that may quote patient data."""

from __future__ import annotations

import logging
import sys

import pytest

from core.errors import Failed
from core.logs import LineFormatter


def _record(error: Exception) -> logging.LogRecord:
    def fail() -> None:
        raise error

    try:
        fail()
    except Exception:  # noqa: BLE001 - any exception may be logged
        info = sys.exc_info()
    return logging.LogRecord("worker.tasks", logging.ERROR, "f", 1, "attempt failed", (), info)


def test_foreign_exception_text_stays_out_of_the_line() -> None:
    line = LineFormatter("worker").format(_record(ValueError("PatientName CANARY^ANNA")))
    assert "CANARY" not in line
    assert "ValueError at core/test_logs.py:" in line


def test_exception_as_the_message_is_reduced_to_its_type() -> None:
    record = logging.LogRecord(
        "pynetdicom", logging.ERROR, "f", 1, ValueError("CANARY^ANNA"), (), None
    )
    assert LineFormatter("receiver").format(record).endswith("pynetdicom: ValueError")


def test_an_exception_of_the_node_keeps_its_text() -> None:
    line = LineFormatter("worker").format(_record(Failed("model-answer-invalid", "6 rows wanted")))
    assert "Failed: 6 rows wanted" in line


@pytest.mark.parametrize("message", ["a\nforged line", "a\r\nforged line"])
def test_a_record_is_one_line(message: str) -> None:
    record = logging.LogRecord("receiver", logging.INFO, "f", 1, message, (), None)
    assert LineFormatter("receiver").format(record).count("\n") == 0
