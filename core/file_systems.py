"""Network file systems: where they are mounted, and why SQLite must not be on one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")
"""Format: proc_pid_mountinfo(5)."""
_NETWORK: Final = re.compile(
    r"nfs4?|cifs|smb3|afs|ceph|lustre|beegfs|gpfs|gfs2|ocfs2"
    r"|fuse\.(ceph-fuse|glusterfs|s3fs|seaweedfs|sshfs)"
)


def find_network_file_system(path: Path) -> str:
    """Return the type of the network file system that holds `path`; empty if it is a local one.

    Parameters
    ----------
    path : Path
        It need not exist yet. Without Linux's list of mounts, every path counts as local.
    """
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    resolved = path.resolve()
    holding, kind = Path("/"), ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        mounted = Path(_unescaped(fields.split()[4]))
        if resolved.is_relative_to(mounted) and mounted.is_relative_to(holding):
            holding, kind = mounted, rest.split()[0]  # of mounts on each other the last one shows
    return kind if _NETWORK.fullmatch(kind) else ""


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
