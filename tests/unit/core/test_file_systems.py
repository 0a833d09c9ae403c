"""SQLite's files must be on a local file system, and Linux's list of mounts tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import file_systems
from core.errors import ConfigurationError
from core.file_systems import find_network_file_system
from core.settings import load_settings

MOUNTS = r"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 22 0:44 / /mnt/spool rw,relatime shared:7 - nfs4 filer:/spool rw,vers=4.1,hard
32 31 254:1 / /mnt/spool/local rw - xfs /dev/vdb rw
33 22 0:45 / /mnt/with\040space rw - cifs //filer/x rw
34 22 0:46 / /mnt/twice rw - nfs4 filer:/y rw
35 22 0:47 / /mnt/twice rw - tmpfs none rw
"""


@pytest.fixture(autouse=True)
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTS)
    monkeypatch.setattr(file_systems, "_MOUNTS", path)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/mnt/spool", "nfs4"),
        ("/mnt/spool/data/epvs.sqlite", "nfs4"),
        ("/mnt/spool2/data", ""),
        ("/mnt/spool/local/x", ""),
        ("/mnt/with space/x", "cifs"),
        ("/mnt/twice/x", ""),
        ("/var/lib/epvs", ""),
    ],
)
def test_the_innermost_mount_counts(path: str, kind: str) -> None:
    assert find_network_file_system(Path(path)) == kind


def test_without_a_list_of_mounts_everything_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_systems, "_MOUNTS", Path("/nonexistent"))
    assert find_network_file_system(Path("/mnt/spool")) == ""


def test_sqlite_on_a_network_file_system_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is on nfs4: use PostgreSQL"):
        load_settings(data_dir=Path("/mnt/spool/data"))
    settings = load_settings(
        data_dir=Path("/mnt/spool/data"), database_url="postgresql://epvs_node@db.example/epvs"
    )
    assert not settings.is_sqlite
