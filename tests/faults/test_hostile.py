"""A short siege: whoever works is served, and what was stored is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.hostile import besiege

if TYPE_CHECKING:
    from pathlib import Path


def test_who_works_is_served_beside_two_hundred_who_do_not(tmp_path: Path) -> None:
    found = besiege(tmp_path, seconds=3.0)
    assert found["hostile connections"] >= 200
    assert found["echoes during"]
    # The second sender begins anew with the first one's UIDs.
    assert found["rows"] == max(found["stored before"], found["stored during"]) > 0
