"""The conformance statement says what the code does."""

from __future__ import annotations

from difflib import unified_diff

from tests.conformance.statement import BLOCKS, PAGE, render


def test_the_tables_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    drift = list(
        unified_diff(page.splitlines(), render(page).splitlines(), "page", "code", n=0, lineterm="")
    )
    assert not drift, "\n".join(["run python -m tests.conformance.statement", *drift])


def test_no_table_was_lost_from_the_page() -> None:
    """A table without its marks would be compared with nothing."""
    page = PAGE.read_text()
    assert {name: page.count(f"<!-- {name} -->") for name in BLOCKS} == dict.fromkeys(BLOCKS, 1)
    assert page.count("<!-- end -->") == len(BLOCKS)
