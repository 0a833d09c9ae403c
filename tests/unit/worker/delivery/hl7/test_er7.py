"""Escaping of text, and parsing of acknowledgments of all HL7 v2 versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders.hl7_reading import unescaped
from worker.delivery.hl7 import er7

HEADER = b"MSH|^~\\&|RIS|H|EPVSNODE||20260302110533||ACK|1|P|2.5.1\r"


@given(st.text("|^~\\&FSTREX.0a \r\n\x0b\x1cüЖ山 \u3000", max_size=20))
def test_text_is_unchanged_after_escaping_and_unescaping(text: str) -> None:
    """Control characters, which could end the message, become spaces."""
    expected = "".join(" " if c in "\r\n\x0b\x1c" else c for c in text.strip())
    line = er7.segment("PID", {5: [("x", text, "y")], 8: "F"})
    fields = line.split("|")
    assert fields == ["PID", *[""] * 4, fields[5], "", "", "F"]
    assert [unescaped(component) for component in fields[5].split("^")] == ["x", expected, "y"]


@pytest.mark.parametrize(
    ("content", "code", "error"),
    [
        (HEADER + b"MSA|AA|ID1\r", "AA", ""),
        (b"MSH|^~\\&|||||||ACK^R01|1|P|2.3\r\nMSA|CA|ID1\r\n", "CA", ""),
        (b"MSH#*~!@#RIS#####20260302##ACK#1#P#2.9\nMSA#AR#ID1#Saal besetzt\n", "AR", ""),
        (HEADER + b"MSA|AE|ID1\rERR||PID^1^3|101^Missing^HL70357|E\r", "AE", "101"),
        (HEADER + b"MSA|AE|ID1\rERR|PID^1^5^103&Table value&HL70357\r", "AE", "103"),
        (HEADER + b"MSA|AE|ID1||||207^Internal^HL70357\r", "AE", "207"),
        (HEADER + b"MSA|AE|ID1|no patient CANARY-17\rERR|||CANARY-17^Canary\r", "AE", ""),
        (HEADER + "MSA|AE|ID1|unzulässig für 山田\r".encode(), "AE", ""),
    ],
)
def test_codes_are_read_from_acknowledgments_but_no_free_text(
    content: bytes, code: str, error: str
) -> None:
    assert er7.read_acknowledgment(content) == er7.Acknowledgment(code, "ID1", error)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"OK",
        b"\xff\x00\x80",
        b"MSH",
        b"MSH|^~\\&",
        b"MSH|||||\rMSA|AA|ID1",
        HEADER,
        b"MSA|AA|ID1",
    ],
)
def test_anything_else_is_not_an_acknowledgment(content: bytes) -> None:
    with pytest.raises(er7.NotAnAcknowledgment):
        er7.read_acknowledgment(content)
