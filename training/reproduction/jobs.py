"""Trainings shared out among processes: each is a job that leaves one file when it is done."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

J = TypeVar("J")


def share_out(run: Callable[[J], str], jobs: Sequence[J], *, processes: int) -> Iterator[str]:
    """Run every job, in this process if there is one only.

    Parameters
    ----------
    run : callable
        Takes a job and returns a line about it; can be pickled.
    jobs : sequence
    processes : int

    Yields
    ------
    str
        One numbered line a job, in the order in which they end.
    """
    if processes == 1:
        for number, job in enumerate(jobs, 1):
            yield f"{number}/{len(jobs)} {run(job)}"
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as executor:
        running = [executor.submit(run, job) for job in jobs]
        for number, done in enumerate(as_completed(running), 1):
            yield f"{number}/{len(jobs)} {done.result()}"
