r"""Writes and reads HL7 v2.5.1 segments in ER7 encoding ("pipes and hats") with hl7apy.

hl7apy handles structure, positions and escape sequences (HL7 v2.5.1 chapter 2, sections 2.5 to
2.7). It does not escape text that looks like an escape sequence, so that ``\F\`` in a name would
reach the receiver as ``|``; text is therefore escaped one character at a time.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hl7apy import get_default_encoding_chars
from hl7apy.core import Field, Segment
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import get_message_info, parse_segment
from hl7apy.v2_5_1 import ST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERSION: Final = "2.5.1"

Value = str | tuple[str, ...]
"""A field with one component, or its components in order; plain text, not escaped."""

_DELIMITERS: Final[dict[str, str]] = get_default_encoding_chars(VERSION)
_ORDER_IN_MSH_2: Final = ("COMPONENT", "REPETITION", "ESCAPE", "SUBCOMPONENT")
_ERROR_CODE: Final = re.compile(r"\d{3}")
"""HL7 table 0357. Any other text in that field may be patient data."""


@dataclass(frozen=True, slots=True)
class Acknowledgment:
    """An HL7 acknowledgment without its free text, which may quote patient data.

    Attributes
    ----------
    code : str
        MSA-1 (HL7 table 0008).
    control_id : str
        MSA-2: MSH-10 of the message that it acknowledges.
    error : str
        Error code of HL7 table 0357; empty if there is none.
    """

    code: str
    control_id: str
    error: str


class NotAnAcknowledgment(ValueError):
    """The response is not an HL7 acknowledgment."""


def segment(name: str, fields: Mapping[int, Value | list[Value]]) -> str:
    """Write one segment.

    Parameters
    ----------
    name : str
        E.g. ``"PID"``.
    fields : mapping
        By position as in the standard; a list holds repetitions. Empty values are omitted. MSH-1
        and MSH-2, the delimiters, are added automatically.

    Raises
    ------
    hl7apy.exceptions.HL7apyException
        The standard has no such segment, field or component.
    """
    made = Segment(name, version=VERSION)
    if name == "MSH":
        made.msh_1 = _DELIMITERS["FIELD"]
        made.msh_2 = "".join(_DELIMITERS[kind] for kind in _ORDER_IN_MSH_2)
    for position, content in fields.items():
        for value in content if isinstance(content, list) else [content]:
            if any(value):
                made.add(_field(f"{name}_{position}", value))
    return str(made.to_er7())


def message(segments: Sequence[str]) -> bytes:
    """Join segments, each ended by a carriage return; UTF-8, which MSH-18 must state."""
    return "".join(segment + _DELIMITERS["SEGMENT"] for segment in segments).encode()


def read_acknowledgment(content: bytes) -> Acknowledgment:
    """Parse an acknowledgment of any HL7 v2 version (HL7 v2.5.1 chapter 2, section 2.9).

    Raises
    ------
    NotAnAcknowledgment
        `content` is anything else.
    """
    # Codes and separators are ASCII in every character set allowed here.
    lines = content.decode("ascii", errors="replace").splitlines()
    try:
        encoding: Any = get_message_info(lines[0])[0] if lines else None
        found = {
            line[:3]: parse_segment(line, version=VERSION, encoding_chars=encoding)
            for line in reversed(lines)  # the first of each kind wins
            if line[:3] in ("MSA", "ERR")
        }
        code, control_id = found["MSA"].msa_1.to_er7(), found["MSA"].msa_2.to_er7()
        return Acknowledgment(str(code), str(control_id), _error_code(found))
    except (HL7apyException, LookupError, AttributeError, TypeError, ValueError) as error:
        raise NotAnAcknowledgment from error


def _error_code(found: Mapping[str, Any]) -> str:
    """Return the error code: ERR-3.1 since v2.5; ERR-1.4.1 or MSA-6.1 in earlier versions."""
    places = [found["MSA"].msa_6.ce_1]
    if "ERR" in found:
        places = [found["ERR"].err_3.cwe_1, found["ERR"].err_1.eld_4.ce_1, *places]
    texts = (str(place.to_er7()) for place in places)
    return next((text for text in texts if _ERROR_CODE.fullmatch(text)), "")


def _field(name: str, value: Value) -> Field:
    made = Field(name, version=VERSION)
    components = (value,) if isinstance(value, str) else value
    made.value = _DELIMITERS["COMPONENT"].join(_escaped(text) for text in components)
    return made


def _escaped(text: str) -> str:
    return "".join(_escaped_character(character) for character in text.strip())


def _escaped_character(character: str) -> str:
    if unicodedata.category(character) == "Cc":
        return " "  # a control character could end the segment or the message
    return str(ST(character).to_er7())
