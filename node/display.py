"""Output for the operator: progress, tables and messages, on a terminal or as plain lines."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# In a file or a pipe, tables are wide enough for a UID.
_WIDTH = None if sys.stdout.isatty() else 160
console = Console(highlight=False, soft_wrap=True, width=_WIDTH)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def heading(text: str) -> None:
    """Print the heading of a section."""
    console.print()
    console.rule(f"[bold]{text}", align="left")


def step(text: str) -> None:
    """Print one line about what is being done."""
    console.print(f"[dim]›[/dim] {text}")


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Progress]:
    """Show a progress bar on a terminal, or print one plain line elsewhere.

    Yields
    ------
    Progress
        With one task (id 0) of `total` steps; ``total=None`` shows the elapsed time only.
    """
    if not console.is_terminal:
        step(description)
    columns = [TextColumn("[dim]›[/dim] {task.description}"), BarColumn(bar_width=30)]
    if total is not None:
        columns.append(MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        bar.add_task(description, total=total)
        yield bar


def print_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str | None = None
) -> None:
    """Print `columns` of `rows` as a table; long cells are wrapped, not cut off."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column.endswith("_uid"))
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    console.print(table)


def print_record(row: Mapping[str, Any]) -> None:
    """Print one row, each column on its own line."""
    width = max((len(name) for name in row), default=0)
    for name, value in row.items():
        console.print(f"  {name:<{width}}  {_cell(value)}", markup=False)


def print_caveats(rows: Iterable[Mapping[str, Any] | None]) -> None:
    """Print the intended use stored with each grade in `rows`, each statement once."""
    for caveat in dict.fromkeys(row.get("caveat") for row in rows if row):
        if caveat:
            console.print(f"[yellow]{escape(caveat)}[/yellow]")


def print_events(events: Iterable[Mapping[str, Any]]) -> None:
    """Print audit events, one line each; a list in the detail is shown by its length only."""
    for event in events:
        detail = "  ".join(f"{name}={_brief(value)}" for name, value in event["detail"].items())
        moment = event["at"].strftime("%Y-%m-%d %H:%M:%S")
        console.print(
            f"  {event['seq']:>4}  {moment}  {event['event']:<14}  {detail}", markup=False
        )


def _brief(value: Any) -> str:
    return f"[{len(value)}]" if isinstance(value, list) else str(value)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    if hasattr(value, "isoformat"):
        return str(value.isoformat(sep=" ", timespec="seconds"))
    return str(value)
