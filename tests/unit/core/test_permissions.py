"""Files of the node are for its own account."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.permissions import is_private, keep_files_private

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_created_afterwards_is_private(tmp_path: Path) -> None:
    keep_files_private()
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    assert all(is_private(path) for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(("mode", "private"), [(0o700, True), (0o750, False), (0o701, False)])
def test_any_permission_of_group_or_others_counts(tmp_path: Path, mode: int, private: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    assert is_private(folder) == private
