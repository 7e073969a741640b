"""Results that show themselves briefly: a line as Python shows a value, a few lines by `print`, a table in a
notebook. What they hold is in their fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from porter.untrusted import escape, printable

# Rows of a table that a notebook shows.
_ROWS = 1_000


class Facts:
    """A result of which `_facts` says what it is, with a word for each line; the first two make it known."""

    def _facts(self) -> list[tuple[str, str]]:
        raise NotImplementedError

    def _rows(self) -> Sequence[Sequence[str]]:
        """What a notebook shows besides, the first row being the header."""
        return ()

    def __repr__(self) -> str:
        (_, first), (_, second), *_ = self._facts()
        return f"<{type(self).__name__} {printable(first)}: {printable(second)}>"

    def __str__(self) -> str:
        facts = self._facts()
        wide = max(len(word) for word, _ in facts)
        return "\n".join(f"{printable(word):<{wide}}  {printable(text)}" for word, text in facts)

    def _repr_html_(self) -> str:
        page = _table(_row("th", fact[:1]) + _row("td", fact[1:]) for fact in self._facts())
        if rows := self._rows():
            header, *body = rows
            more = [[f"… and {len(body) - _ROWS:,} more"]] if len(body) > _ROWS else []
            page += _table([_row("th", header), *(_row("td", row) for row in (*body[:_ROWS], *more))])
        return page


def _table(rows: Iterable[str]) -> str:
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _row(tag: str, cells: Iterable[str]) -> str:
    return "".join(f"<{tag}>{escape(cell, 'html')}</{tag}>" for cell in cells)
