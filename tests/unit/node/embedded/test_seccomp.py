"""The filter of system calls lets fchmod fail, and nothing else."""

from __future__ import annotations

import errno
import subprocess
import sys
from typing import TYPE_CHECKING

from core.permissions import is_private
from node.embedded.seccomp import refuse_fchmod

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o644)
try:
    os.fchmod(descriptor, 0o644)
except OSError as error:
    print(error.errno)
"""


def test_a_file_keeps_the_permissions_that_it_was_created_with(tmp_path: Path) -> None:
    file = tmp_path / "file"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, file],
        umask=0o077,
        preexec_fn=refuse_fchmod,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{errno.EPERM}\n"
    assert is_private(file)
