"""A damaged template is never read in part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.errors import Failed
from worker.grading.stages.template import TEMPLATE_FILE, load_template

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped", "other"])
def test_a_damaged_template_is_reported_with_file_and_remedy(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "template.npz"
    content = TEMPLATE_FILE.read_bytes()
    middle = len(content) // 2
    damaged = {
        "empty": b"",
        "cut": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :],
        "other": b"no archive at all",
    }
    if damage in damaged:
        file.write_bytes(damaged[damage])
    with pytest.raises(Failed, match=r"template\.npz.*Reinstall epvs-node") as refusal:
        load_template(file)
    assert refusal.value.code == "template-unreadable"
