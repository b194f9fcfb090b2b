"""Lists in pages, as the protocol has them: `after` an id, at most `limit`, and `has_more`."""

from __future__ import annotations

from tunelm.server.errors import ApiError
from tunelm.server.store import Row, Store

MOST_JOBS, MOST_FILES = 1_000, 10_000


def check_limit(limit: int, most: int = MOST_JOBS) -> None:
    """Raises ApiError for a limit that is out of range."""
    if not 1 <= limit <= most:
        raise ApiError(400, f"limit: got {limit}, expected 1 to {most}.", "invalid_value", "limit")


def page(
    store: Store,
    table: str,
    where: tuple[str, tuple[object, ...]],
    after: str | None,
    limit: int,
    newest_first: bool = True,
) -> tuple[list[Row], bool]:
    """(rows of one page, whether there are more).

    Args:
        store: where they are.
        table: one with `seq` and `id`.
        where: a condition and its values.
        after: the id that the page begins after; None: the first page.
        limit: most rows.
        newest_first: in which order.

    Raises:
        ApiError: `after` names no row of the table.
    """
    condition, values = where
    if after is not None:
        row = store.one(f"SELECT seq FROM {table} WHERE id = ?", after)
        if row is None:
            raise ApiError(400, f"after: there is no {after[:80]!r}.", "invalid_value", "after")
        condition += f" AND seq {'<' if newest_first else '>'} ?"
        values = (*values, row["seq"])
    order = "DESC" if newest_first else "ASC"
    rows = store.all(
        f"SELECT * FROM {table} WHERE {condition} ORDER BY seq {order} LIMIT ?", *values, limit + 1
    )
    return rows[:limit], len(rows) > limit
