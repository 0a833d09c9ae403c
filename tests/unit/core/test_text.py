"""Foreign text cannot act on a terminal or forge a line, and otherwise stays as it is."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from core.text import column_text, printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\r\nINFO forged", r"a\r\nINFO forged"),
        ("\x7f\x00", r"\x7f\x00"),
        ("1.2\u202e3.4\u2066", r"1.2\u202e3.4\u2066"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("name\udcff.dcm", r"name\udcff.dcm"),
    ],
)
def test_what_a_terminal_obeys_is_shown_as_its_code(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["Müller^Jörg", "山田^太郎", "김희중", "[red]ü[/]", r"a\x1b"])
def test_every_other_character_stays(text: str) -> None:
    assert printable(text) == text


def test_no_control_character_or_separator_of_unicode_is_forgotten() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = printable(everything, longest=sys.maxsize)
    left = {unicodedata.category(character) for character in shown}
    assert left.isdisjoint({"Cc", "Cs", "Zl", "Zp"})
    directions = {unicodedata.bidirectional(character) for character in shown}
    assert directions.isdisjoint({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
    assert len(shown.splitlines()) == 1
    shown.encode()


def test_a_long_text_is_cut_off_and_its_length_stated() -> None:
    assert printable("x" * 11, longest=10) == "xxxxxxxxxx… (11 characters)"
    assert printable("x" * 10, longest=10) == "x" * 10
    assert len(printable("\x1b" * 10**6)) < 20_000


def test_lines_stay_lines() -> None:
    assert printable_lines("a\x1b\nb\r") == "a\\x1b\nb\\r"


def test_a_column_keeps_printable_characters() -> None:
    assert column_text(" J\u00f6rg \x1b[1m\u200b\u5f20\0 ") == "J\u00f6rg [1m\u5f20"
    assert column_text("7" * 99) == "7" * 64
