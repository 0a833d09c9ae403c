from __future__ import annotations

import pytest

from core.priorities import NORMAL, parse_priority_rule, priority_of

RULES = tuple(
    parse_priority_rule(text)
    for text in ("1:requested=STAT", "2:station=ER*", "9:ae=RESEARCH", "3:station=CT[1]")
)


@pytest.mark.parametrize(
    ("calling_ae", "requested", "station", "priority"),
    [
        ("PACS", "", "", NORMAL),
        ("PACS", "STAT", "", 1),
        ("RESEARCH", "STAT", "ER_MR1", 1),  # the first rule that matches
        ("RESEARCH", "ROUTINE", "ER_MR1", 2),
        ("RESEARCH", "", "MR1", 9),
        (" RESEARCH ", "", "MR1", 9),
        ("RESEARCHER", "", "MR_ER", NORMAL),
        ("PACS", "", "CT[1]", 3),
        ("PACS", "", "CT1", NORMAL),  # a bracket is no class of characters
        ("PACS", "stat", "", NORMAL),
    ],
)
def test_the_first_matching_rule_gives_the_priority(
    calling_ae: str, requested: str, station: str, priority: int
) -> None:
    found = priority_of(RULES, calling_ae=calling_ae, requested=requested, station=station)
    assert found == priority


@pytest.mark.parametrize(
    "text", ["", "STAT", "0:ae=X", "10:ae=X", "1:ae", "1:ae=", "1:patient=X", "a:ae=X", "1=ae:X"]
)
def test_another_form_is_refused_with_the_valid_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"1:requested=STAT"):
        parse_priority_rule(text)
