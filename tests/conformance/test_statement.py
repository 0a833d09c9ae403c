"""The conformance statement says what the code does."""

from __future__ import annotations

from tests.conformance.statement import PAGE, render


def test_the_tables_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    assert render(page) == page, "run python -m tests.conformance.statement"
