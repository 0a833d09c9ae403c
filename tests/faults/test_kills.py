"""A short run of the campaign that kills the receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.kills import kill_repeatedly

if TYPE_CHECKING:
    from pathlib import Path


def test_stored_instances_survive_every_kill(tmp_path: Path) -> None:
    answers, wrong = kill_repeatedly(tmp_path, number=1, kills=3)
    assert answers["0x0000"]
    assert wrong == []
