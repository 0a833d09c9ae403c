"""The conformance statement matches the code."""

from __future__ import annotations

from difflib import unified_diff

from tests.conformance.statement import BLOCKS, PAGE, render


def test_the_tables_match_the_code() -> None:
    page = PAGE.read_text()
    drift = list(
        unified_diff(page.splitlines(), render(page).splitlines(), "page", "code", n=0, lineterm="")
    )
    assert not drift, "\n".join(["run python -m tests.conformance.statement", *drift])


def test_every_table_is_on_the_page_once() -> None:
    """A table without its marks would not be compared."""
    page = PAGE.read_text()
    assert {name: page.count(f"<!-- {name} -->") for name in BLOCKS} == dict.fromkeys(BLOCKS, 1)
    assert page.count("<!-- end -->") == len(BLOCKS)
