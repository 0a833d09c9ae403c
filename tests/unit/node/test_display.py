"""Output of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from node import display

if TYPE_CHECKING:
    import pytest


def test_the_intended_use_stored_with_each_grade_is_printed_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "console", Console(width=160, soft_wrap=True))
    display.print_caveats(
        [{"caveat": "Research [only]."}, None, {"caveat": None}, {"caveat": "Research [only]."}]
    )
    assert capsys.readouterr().out == "Research [only].\n"
