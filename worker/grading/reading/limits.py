"""Limits of the process that reads one study."""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from core.studies import ClosedStudy

_CPU_S: Final = 3.0
_CPU_S_PER_MB: Final = 0.5
"""Lossless JPEG 2000, the slowest syntax, takes about half of that."""
_ELAPSED_PER_CPU: Final = 5.0
_ELAPSED_S: Final = 60.0
"""For a loaded machine or a slow disk, which say nothing of the study."""
_MEMORY_MB: Final = 512
"""Beyond the loaded libraries; twice the voxels of the largest series."""
_MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one reading.

    Processor time grows with the bytes received, so that a small file cannot ask for much of it.

    Attributes
    ----------
    cpu_s : int
        Processor time.
    elapsed_s : float
    memory_mb : int
        Address space beyond that of the loaded libraries, in MiB.
    """

    cpu_s: int
    elapsed_s: float
    memory_mb: int = _MEMORY_MB

    @classmethod
    def of_study(cls, study: ClosedStudy) -> Self:
        """Return the limits for reading the files of a study."""
        n_bytes = sum(i.path.stat().st_size for i in study.instances if i.path.is_file())
        cpu_s = math.ceil(_CPU_S + _CPU_S_PER_MB * n_bytes / _MEBIBYTE)
        return cls(cpu_s, _ELAPSED_S + _ELAPSED_PER_CPU * cpu_s)

    def apply(self, max_file_bytes: int) -> None:
        """Limit this process for the rest of its life.

        Parameters
        ----------
        max_file_bytes : int
            Largest file that it may write.
        """
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _limit(resource.RLIMIT_AS, used + self.memory_mb * _MEBIBYTE)
        _limit(resource.RLIMIT_CPU, self.cpu_s, self.cpu_s + 1)  # SIGXCPU, then SIGKILL
        _limit(resource.RLIMIT_FSIZE, max_file_bytes)
        _limit(resource.RLIMIT_CORE, 0)


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    """Set a limit, which a stricter one of the surroundings still bounds."""
    hard = soft if hard is None else hard
    _, allowed = resource.getrlimit(kind)
    if allowed != resource.RLIM_INFINITY:
        soft, hard = min(soft, allowed), min(hard, allowed)
    resource.setrlimit(kind, (soft, hard))
