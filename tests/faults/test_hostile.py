"""A short run of the load test with hostile connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.hostile import run_load_test

if TYPE_CHECKING:
    from pathlib import Path


def test_legitimate_senders_are_served_beside_two_hundred_hostile_connections(
    tmp_path: Path,
) -> None:
    found = run_load_test(tmp_path, seconds=3.0)
    assert found["hostile connections"] >= 200
    assert found["echoes during"]
    # Both senders use the same UIDs.
    assert found["rows"] == max(found["stored before"], found["stored during"]) > 0
