"""A few of the kills that the campaign makes by the thousand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.kills import kill_again_and_again

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_answered_survives_every_kill(tmp_path: Path) -> None:
    answers, wrong = kill_again_and_again(tmp_path, number=1, kills=3)
    assert answers["0x0000"]
    assert wrong == []
