"""Progress display: log lines, with a progress bar below them on a terminal."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.text import printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")

_CONSOLE: Final = Console(stderr=True, highlight=False, soft_wrap=True)


class ConsoleHandler(logging.Handler):
    """Writes log lines above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one log record."""
        _CONSOLE.print(printable_lines(self.format(record)), markup=False)


def track(work: Iterable[T], what: str, *, total: int | None = None, done: int = 0) -> Iterator[T]:
    """Iterate over `work` and show a progress bar.

    Parameters
    ----------
    work : iterable
    what : str
        Label of the bar.
    total : int, optional
        Number of steps, if known.
    done : int
        Steps finished by an earlier run.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    hidden = not _CONSOLE.is_terminal
    with Progress(*columns, console=_CONSOLE, transient=True, disable=hidden) as progress:
        task = progress.add_task(what, total=total, completed=done)
        for step in work:
            yield step
            progress.advance(task)
