"""Reads HL7 messages without the library that wrote them."""

from __future__ import annotations

import re

_ESCAPES = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\"}


def unescaped(text: str) -> str:
    return re.sub(r"\\([FSTRE])\\", lambda match: _ESCAPES[match[1]], text)


def segments(content: bytes) -> list[list[str]]:
    """Return the fields of each segment, still escaped; in MSH, too, field n is item n."""
    lines = content.decode().split("\r")
    assert lines.pop() == ""  # the last segment is ended as the others are
    fields = [line.split("|") for line in lines]
    assert fields[0][0] == "MSH"
    fields[0].insert(1, "|")
    return fields


def field(content: bytes, name: str, position: int) -> str:
    """Return a field of the first segment of that name; empty if the segment is shorter."""
    found = next(fields for fields in segments(content) if fields[0] == name)
    return found[position] if position < len(found) else ""


def names(content: bytes) -> list[list[str]]:
    """Return the components of each repetition of PID-5."""
    return [
        [unescaped(component) for component in repetition.split("^")]
        for repetition in field(content, "PID", 5).split("~")
    ]
