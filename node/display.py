"""Output for the operator: progress, tables and messages, on a terminal or as plain lines.

Nothing that is printed here is read as markup or can act on the terminal: see `_Console`.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from core.text import printable, printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import JustifyMethod, OverflowMethod
    from rich.style import Style


class _Console(Console):
    """A console that shows every string as it is: control characters by their codes, no markup.

    Rich turns each string that it prints into a `Text` here: lines, titles and cells of tables.
    """

    def render_str(
        self,
        text: str,
        *,
        style: str | Style = "",
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        **_: Any,  # markup, emoji and highlighting
    ) -> Text:
        return Text(printable_lines(text), style=style, justify=justify, overflow=overflow)


# In a file or a pipe, tables are wide enough for a UID.
_WIDTH = None if sys.stdout.isatty() else 160
console = _Console(soft_wrap=True, width=_WIDTH)
_errors = _Console(stderr=True, soft_wrap=True)


def heading(text: str) -> None:
    """Print the heading of a section."""
    console.print()
    console.rule(Text(printable(text), style="bold"), align="left")


def step(text: str) -> None:
    """Print one line about what is being done."""
    console.print(Text.assemble(("›", "dim"), " ", printable_lines(text)))


def outcome(ok: bool, text: str, *, warning: bool = False) -> None:
    """Print the outcome of one check on one line, so that no text can look like another check."""
    mark = ("ok  ", "green") if ok else ("FAIL", "red")
    if ok and warning:
        mark = ("warn", "yellow")
    console.print(Text.assemble(mark, " ", printable(text)))


def error(text: str) -> None:
    """Print on standard error why the command failed."""
    _errors.print(Text.assemble(("epvs-node:", "red"), " ", printable_lines(text)))


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
    columns = [TextColumn("› {task.description}", markup=False), BarColumn(bar_width=30)]
    if total is not None:
        columns.append(MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        bar.add_task(printable(description), total=total)
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
        console.print(f"  {name:<{width}}  {_cell(value)}")


def print_caveats(rows: Iterable[Mapping[str, Any] | None]) -> None:
    """Print the intended use stored with each grade in `rows`, each statement once."""
    for caveat in dict.fromkeys(row.get("caveat") for row in rows if row):
        if caveat:
            console.print(caveat, style="yellow")


def print_events(events: Iterable[Mapping[str, Any]]) -> None:
    """Print audit events, one line each; a list in the detail is shown by its length only."""
    for event in events:
        detail = "  ".join(f"{name}={_brief(value)}" for name, value in event["detail"].items())
        moment = event["at"].strftime("%Y-%m-%d %H:%M:%S")
        console.print(f"  {event['seq']:>4}  {moment}  {event['event']:<14}  {detail}")


def _brief(value: Any) -> str:
    return f"[{len(value)}]" if isinstance(value, list) else printable(str(value))


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    if hasattr(value, "isoformat"):
        return str(value.isoformat(sep=" ", timespec="seconds"))
    return printable(str(value))  # one line, so that no value can look like another row
