"""Output of the command line: exactly the text that was given, whatever it contains."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from node import display

if TYPE_CHECKING:
    from collections.abc import Callable

HOSTILE = "[/red] \x1b[31m[bold]x[/bold]\u202e :warning:"
SHOWN = r"[/red] \x1b[31m[bold]x[/bold]\u202e :warning:"
EVENT = {"seq": 1, "at": datetime(2026, 1, 31, tzinfo=UTC), "event": "closed"}


@pytest.fixture(autouse=True)
def wide_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "console", type(display.console)(width=160, soft_wrap=True))


def _within_progress() -> None:
    with display.progress(HOSTILE, 1):
        pass


@pytest.mark.parametrize(
    "show",
    [
        lambda: display.console.print(HOSTILE),
        lambda: display.heading(HOSTILE),
        lambda: display.step(HOSTILE),
        lambda: display.outcome(False, HOSTILE),
        lambda: display.error(HOSTILE),
        lambda: display.print_table([{"detail": HOSTILE}], ["detail"]),
        lambda: display.print_table([{"a": "b"}], ["a"], title=HOSTILE),
        lambda: display.print_record({"detail": HOSTILE}),
        lambda: display.print_caveats([{"caveat": HOSTILE}]),
        lambda: display.print_events([{**EVENT, "detail": {"calling_ae": HOSTILE}}]),
        _within_progress,
    ],
)
def test_no_text_is_read_as_markup_or_acts_on_the_terminal(
    show: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    show()
    output = capsys.readouterr()
    assert SHOWN in output.out + output.err
    assert "\x1b" not in output.out + output.err


def test_a_progress_bar_on_a_terminal_shows_the_text_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = type(display.console)(force_terminal=True, width=160, no_color=True)
    monkeypatch.setattr(display, "console", terminal)
    _within_progress()
    assert SHOWN in capsys.readouterr().out


def test_a_value_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    display.print_record({"detail": "a\n  rating  4"})
    display.print_events([{**EVENT, "detail": {"reason": "a\n     2  forged"}}])
    display.outcome(False, "destination PACS: no answer\nok   destination PACS: answers")
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_intended_use_stored_with_each_grade_is_printed_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display.print_caveats(
        [{"caveat": "Research [only]."}, None, {"caveat": None}, {"caveat": "Research [only]."}]
    )
    assert capsys.readouterr().out == "Research [only].\n"
