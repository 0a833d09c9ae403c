"""The SR variants that destinations receive."""

from __future__ import annotations

import pytest

from core.destinations import DicomDestination, parse_destination, sr_variant, sr_variants


def variants(destinations: str, *, graded: bool) -> list[tuple[str, bool]]:
    parsed = [parse_destination(text) for text in destinations.split(",") if text]
    built = sr_variants(parsed, graded=graded)
    for destination in parsed:
        if isinstance(destination, DicomDestination) and (graded or destination.not_graded):
            assert sr_variant(destination, graded=graded) in built
    return [(str(variant.sr_class), variant.parametric_map) for variant in built]


@pytest.mark.parametrize(
    ("destinations", "expected"),
    [
        ("", [("comprehensive", False)]),
        ("hl7://h:1", [("comprehensive", False)]),
        ("A@h:1,B@h:1?sc=0", [("comprehensive", False)]),
        ("A@h:1?sr=comprehensive3d&pm=1,hl7://h:1", [("comprehensive3d", True)]),
        (
            "A@h:1,B@h:1?pm=1,C@h:1?sr=comprehensive3d",
            [("comprehensive", True), ("comprehensive", False), ("comprehensive3d", False)],
        ),
    ],
)
def test_a_graded_study_has_an_sr_for_each_destination_and_at_least_one(
    destinations: str, expected: list[tuple[str, bool]]
) -> None:
    assert variants(destinations, graded=True) == expected


@pytest.mark.parametrize(
    ("destinations", "expected"),
    [
        ("A@h:1", []),
        ("A@h:1,B@h:1?notgraded=1&sr=comprehensive3d&pm=1", [("comprehensive3d", False)]),
        ("hl7://h:1?notgraded=1", [("comprehensive", False)]),
        (
            "A@h:1?notgraded=1&sr=comprehensive3d,hl7://h:1?notgraded=1",
            [("comprehensive3d", False)],
        ),
        (
            "A@h:1?notgraded=1&sr=comprehensive3d,*@*:1?notgraded=1",
            [("comprehensive", False), ("comprehensive3d", False)],
        ),
    ],
)
def test_a_study_without_grade_has_an_sr_only_for_destinations_that_ask_for_it(
    destinations: str, expected: list[tuple[str, bool]]
) -> None:
    assert variants(destinations, graded=False) == expected
