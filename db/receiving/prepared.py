"""Statements that SQLAlchemy compiles once and the database driver runs.

For the two statements that every received image waits for: run by SQLAlchemy, they take several
times as long as in SQLite itself (``docs/results/intake.md``). Statements, dialects and column
types are still SQLAlchemy's; only the work that is the same every time is done once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import ClauseElement, Connection, Dialect
    from sqlalchemy.sql.compiler import SQLCompiler


class Prepared:
    """A prepared statement; may be shared by connections and threads.

    Parameters
    ----------
    make : callable
        Makes the statement; is given the name of the dialect.
    columns : sequence of str, optional
        Columns that an INSERT sets.
    """

    def __init__(
        self, make: Callable[[str], ClauseElement], columns: Sequence[str] | None = None
    ) -> None:
        self._make = make
        self._columns = columns
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run the statement and return its rows as the driver gives them.

        Parameters
        ----------
        connection : Connection
            In a transaction of `db.session`, which translates the driver's errors.
        values : mapping
            Values by the names of the bound parameters.
        """
        dialect = connection.dialect
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = self._compile(dialect)
        cursor = connection.connection.cursor()
        try:
            cursor.execute(compiled.text, compiled.bind(values))
            return cast("list[tuple[Any, ...]]", cursor.fetchall())
        finally:
            cursor.close()

    def _compile(self, dialect: Dialect) -> _Compiled:
        compiled = cast(
            "SQLCompiler",
            self._make(dialect.name).compile(
                dialect=dialect,
                column_keys=list(self._columns) if self._columns else None,
            ),
        )
        places = []
        for name in (compiled.positiontup or ()) if compiled.positional else compiled.params:
            parameter = compiled.binds[name]
            process = parameter.type.dialect_impl(dialect).bind_processor(dialect) or _unchanged
            constant = None if parameter.required else process(compiled.params[name])
            places.append(_Place(name, parameter.required, process, constant))
        return _Compiled(str(compiled), compiled.positional, tuple(places))


class _Place(NamedTuple):
    """A bound parameter of a compiled statement."""

    name: str
    is_given: bool
    """Whether each run gives its value; otherwise it is a constant of the statement."""
    process: Callable[[Any], Any]
    constant: Any


class _Compiled(NamedTuple):
    text: str
    is_positional: bool
    places: tuple[_Place, ...]

    def bind(self, values: Mapping[str, Any]) -> list[Any] | dict[str, Any]:
        bound = [
            process(values[name]) if is_given else constant
            for name, is_given, process, constant in self.places
        ]
        if self.is_positional:
            return bound
        return dict(zip((place.name for place in self.places), bound, strict=True))


def _unchanged(value: Any) -> Any:
    return value
