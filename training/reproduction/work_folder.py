"""Work folder of a reproduction: one cohort, and the stored result of every training job."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TYPE_CHECKING, TypeVar

from core.errors import ConfigurationError
from training.storage import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

J = TypeVar("J")


def bind_to_cohort(work: Path, cohort: dict[str, Any]) -> None:
    """Record which cohort a work folder belongs to, so that stored results are never mixed.

    Parameters
    ----------
    work : Path
    cohort : dict
        Result of `describe_cohort`.

    Raises
    ------
    ConfigurationError
        The folder belongs to another cohort.
    """
    record = work / "evaluated.json"
    if record.is_file() and json.loads(record.read_text(encoding="utf-8")) != cohort:
        raise ConfigurationError(f"{work} belongs to another cohort.", "Name another --work.")
    write_json(record, cohort)


def result_file(work: Path, name: str) -> Path:
    """Return the file in which a training job stores its result."""
    return work / "jobs" / f"{name}.npz"


def missing_result(file: Path) -> ConfigurationError:
    """Return the error for a result that is missing or belongs to another plan."""
    return ConfigurationError(
        f"{file.name} is missing or was trained with another plan.",
        "Run the reproduction to the end; it resumes.",
    )


def run_in_processes(
    run: Callable[[J], str], jobs: Sequence[J], *, processes: int
) -> Iterator[str]:
    """Run jobs in worker processes, or in this process if `processes` is 1.

    Parameters
    ----------
    run : callable
        Takes a job and returns a line about its result; must be picklable.
    jobs : sequence
    processes : int

    Yields
    ------
    str
        One numbered line per job, in order of completion.
    """
    if processes == 1:
        for number, job in enumerate(jobs, 1):
            yield f"{number}/{len(jobs)} {run(job)}"
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as executor:
        running = [executor.submit(run, job) for job in jobs]
        for number, done in enumerate(as_completed(running), 1):
            yield f"{number}/{len(jobs)} {done.result()}"
