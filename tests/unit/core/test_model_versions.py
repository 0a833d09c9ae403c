from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.model_versions import newest_version, versions

if TYPE_CHECKING:
    from pathlib import Path


def test_versions_are_numbered_folders_in_numeric_order(tmp_path: Path) -> None:
    for name in ("10", "9", "building-11", "0", "1a"):
        (tmp_path / name).mkdir()
    (tmp_path / "12").touch()
    assert versions(tmp_path) == ["9", "10"]
    assert newest_version(tmp_path) == "10"


def test_a_folder_without_versions_has_no_newest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no version folder"):
        newest_version(tmp_path / "rating")
