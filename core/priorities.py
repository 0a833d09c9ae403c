"""Rules that give studies a priority: the entries of ``EPVS_PRIORITY_RULES``.

The form of an entry, the first that matches an instance counts::

    PRIORITY:ae=PATTERN           calling AE title of the sender
    PRIORITY:requested=PATTERN    Requested Procedure Priority (0040,1003), for example STAT
    PRIORITY:station=PATTERN      Station Name (0008,1010)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

NORMAL: Final = 5
"""Priority of what no rule matches; 1 is graded first, 9 last."""

_ENTRY: Final = re.compile(r"([1-9]):(ae|requested|station)=(.+)")


@dataclass(frozen=True, slots=True)
class PriorityRule:
    """One entry: the priority of instances whose `field` matches `pattern` (``*``: any text)."""

    priority: int
    field: str
    pattern: str


def parse_priority_rule(text: str) -> PriorityRule:
    """Read one entry.

    Raises
    ------
    ValueError
        Shows the valid form.
    """
    entry = _ENTRY.fullmatch(text.strip())
    if entry is None:
        raise ValueError(
            f"{text!r} is not of the form PRIORITY:FIELD=PATTERN, with a priority from 1 (first) "
            "to 9 and the field ae, requested or station, for example 1:requested=STAT or "
            "2:station=ER*"
        )
    return PriorityRule(int(entry[1]), entry[2], entry[3])


def priority_of(
    rules: Iterable[PriorityRule], *, calling_ae: str, requested: str, station: str
) -> int:
    """Return the priority that the first matching rule gives to an instance."""
    values = {"ae": calling_ae.strip(), "requested": requested, "station": station}
    for rule in rules:
        # No classes of characters: a bracket in a name is a bracket.
        if fnmatchcase(values[rule.field], rule.pattern.replace("[", "[[]")):
            return rule.priority
    return NORMAL
