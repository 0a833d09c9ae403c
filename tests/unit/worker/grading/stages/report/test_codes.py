"""Codes fit their value representations and cover every rating and reason."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.sr.coding import Code

from core.reasons import Reason
from core.results import COUNT_RANGES
from worker.grading.stages.report import codes


def all_codes() -> list[Code]:
    found: list[Code] = []
    for constant in vars(codes).values():
        if isinstance(constant, Code):
            found.append(constant)
        elif isinstance(constant, Mapping):
            found += [code for code in constant.values() if isinstance(code, Code)]
        elif isinstance(constant, tuple):
            found += [code for code in constant if isinstance(code, Code)]
    return found


def test_values_and_meanings_fit_and_are_unique() -> None:
    found = all_codes()
    assert len(found) > 60
    for code in found:
        assert len(code.value) <= codes.CODE_VALUE_LENGTH
        assert len(code.meaning) <= codes.CODE_MEANING_LENGTH
    keys = [(code.scheme_designator, code.value) for code in found]
    assert len(set(keys)) == len(keys)


def test_every_rating_code_states_its_count_range() -> None:
    for code, count_range in zip(codes.RATINGS[1:], COUNT_RANGES[1:], strict=True):
        assert f"({count_range})" in code.meaning


def test_every_reason_for_not_grading_has_a_code() -> None:
    assert set(Reason) - codes.REASONS.keys() == {Reason.SELECTED, Reason.LESS_SUITABLE}
