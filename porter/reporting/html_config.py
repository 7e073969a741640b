"""Parts of a report that are words and values: configs side by side, and a receipt."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from porter.config.raw import get
from porter.reporting.html_page import details, table, text
from porter.tables.model import Dialect


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and values as text; a list is one value."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", shown(value)


def shown(value: object) -> str:
    """A value as JSON has it; a long list of few values by how many of each there are."""
    if isinstance(value, list | tuple) and len(value) > 12:
        kinds = {repr(item): 0 for item in value}
        for item in value:
            kinds[repr(item)] += 1
        if len(kinds) <= 4:
            return f"{len(value)} values: " + ", ".join(f"{n} × {kind}" for kind, n in kinds.items())
    return json.dumps(value, ensure_ascii=False, default=str)


def side_by_side(values: Mapping[str, Any], sides: Sequence[tuple[str, Mapping[str, Any], Dialect]]) -> str:
    """Configs beside porter's own words for what they say: a row for each hyperparameter in `values`.

    A side is its title, its config and its dialect, whose table says which fields hold what. What else is in
    the configs follows.
    """
    rows = [["In porter's words", "Value", *(title for title, _, _ in sides)]]
    told: list[set[str]] = [set() for _ in sides]
    for name, value in values.items():
        cells = []
        for (_, config, dialect), known in zip(sides, told, strict=True):
            entry = dialect.config.fields.get(name)
            fields = [] if entry is None else [path for path in entry.fields if get(config, path)[0]]
            known.update(fields)
            if fields:
                cells.append(", ".join(f"{path} = {shown(get(config, path)[1])}" for path in fields))
            else:
                fixed = entry is not None and entry.has_fixed
                cells.append("in its code" if fixed else "")
        # What neither speaks of and the model has not would be most of the rows.
        if any(cells) or value not in (None, False, 0):
            rows.append([name, shown(value), *cells])
    made = table(rows)
    for (title, config, _), known in zip(sides, told, strict=True):
        rest = [[name, value] for name, value in flat(config) if not _within(name, known)]
        if rest:
            made += details(text(f"{title}: what else it says"), table([["Field", "Value"], *rest]))
    return made


def compared(pairs: Mapping[str, Sequence[Any]], titles: tuple[str, str], differing: Collection[str]) -> str:
    """What two configs say, a row a field; those that differ come first and stand out."""
    order = sorted(pairs, key=lambda name: name not in differing)
    rows = [[name, *(shown(value) for value in pairs[name])] for name in order]
    marked = [at for at, name in enumerate(order) if name in differing]
    return table([["In porter's words", *titles], *rows], marked=marked, name="configs")


def _within(name: str, known: Collection[str]) -> bool:
    return any(name == path or name.startswith(path + ".") for path in known)


def values(config: Mapping[str, Any], heading: str = "Hyperparameter") -> str:
    return table([[heading, "Value"], *([name, value] for name, value in flat(config))])


def receipt(content: Mapping[str, Any]) -> str:
    """A receipt: its short facts as a table, the whole behind a fold."""
    short = {key: value for key, value in content.items() if not isinstance(value, Mapping | list)}
    whole = text(json.dumps(content, indent=2, ensure_ascii=False)).replace("\\n", "\n")
    return values(short, "Receipt") + details("the whole receipt", f"<pre><code>{whole}</code></pre>")
