"""The `[config]` part of a dialect's table: where each canonical hyperparameter stands in its config."""

from __future__ import annotations

from typing import Any, NamedTuple

from porter.layout import Expression
from porter.tables.model import Caution, ConfigTable, Constant, FieldEntry, MergedDict, TableError, Where
from porter.tables.table_parts import expression_at
from porter.tables.toml_source import TableSource

_CONFIG_KEYS = {
    *("file", "match", "fields", "write", "require", "known", "float32"),
    *("section", "optional", "recognise", "borrow", "published", "merge", "outer", "caution", "closed"),
    *("left_out",),
}
_SPELLINGS = {"float", "int", "number"}
_MERGE_KEYS = {"first", "base", "update", "fill", "over", "kind", "keys"}
_ENTRY_KEYS = {
    "field",
    "write_to",
    "values",
    "default",
    "each_layer",
    "nullable",
    "none_is",
    "null_is",
    "read",
    "write",
    "assumed",
    "fixed",
    "only",
    "contains",
    "avoid",
    "as",
}


class Recognition(NamedTuple):
    """By what a dialect is recognised, before its table is loaded whole: see `ConfigTable`."""

    file: str | None
    match: dict[str, Any]
    optional: bool
    borrow: tuple[str, ...]


def recognition(chain: list[TableSource]) -> Recognition:
    """Of the `[config]` sections of a table and its ancestors, eldest first."""
    merged: dict[str, Any] = {}
    match: dict[str, Any] = {}
    for source in chain:
        config = source.data.get("config", {})
        merged |= config
        match |= config.get("match", {})
    return Recognition(
        merged.get("file"), match, bool(merged.get("optional")), tuple(merged.get("borrow", ()))
    )


def load_config(chain: list[TableSource]) -> ConfigTable:
    """Merge the `[config]` sections of a table and its ancestors, eldest first."""
    float32 = False
    section: str | None = None
    recognise: Expression | None = None
    fields: dict[str, FieldEntry] = {}
    write: dict[str, tuple[Any, Where]] = {}
    published: dict[str, tuple[Any, Where]] = {}
    require: dict[str, tuple[Any, ...] | None] = {}
    known: list[str] = []
    closed: list[str] = []
    merge: dict[str, MergedDict] = {}
    merged: dict[str, dict[str, Any]] = {}
    outer: dict[str, str] = {}
    caution: dict[str, Caution] = {}
    left_out: dict[str, Any] = {}
    for source in chain:
        config = source.data.get("config", {})
        for key in config:
            if key not in _CONFIG_KEYS:
                raise TableError(
                    source.where("config", key),
                    f"unknown key `{key}` in [config]",
                    hint=f"known: {', '.join(sorted(_CONFIG_KEYS))}",
                )
        float32 = bool(config.get("float32", float32))
        section = config.get("section", section)
        outer |= config.get("outer", {})
        left_out |= config.get("left_out", {})
        for name, value in config.get("caution", {}).items():
            caution[name] = Caution(
                expression_at(value["when"], source.where("config", "caution", name)), value["say"]
            )
        for name, value in config.get("merge", {}).items():
            merged[name] = {**merged.get(name, {}), **value}
            merge[name] = _merged(name, merged[name], source.where("config", "merge", name))
        if "recognise" in config:
            recognise = expression_at(config["recognise"], source.where("config", "recognise"))
        for name, raw in config.get("fields", {}).items():
            fields[name] = _entry(name, raw, source.where("config", "fields", name))
            # A field takes the place of an inherited constant.
            write.pop(fields[name].write_to or "", None)
        for name, value in config.get("write", {}).items():
            write[name] = (_written(value, source, name), source.where("config", "write", name))
        for name, value in config.get("published", {}).items():
            where = source.where("config", "published", name)
            published[name] = (_literal_or_expression(value, where), where)
        for name, value in config.get("require", {}).items():
            require[name] = None if value == "any" else tuple(value) if isinstance(value, list) else (value,)
        known.extend(config.get("known", []))
        closed.extend(config.get("closed", []))
    # Once all keys are known to be right.
    file, match, optional, borrow = recognition(chain)
    return ConfigTable(
        file,
        match,
        fields,
        write,
        require,
        tuple(known),
        float32,
        section,
        optional,
        recognise,
        borrow,
        published,
        merge,
        outer,
        caution,
        tuple(closed),
        left_out,
    )


def _merged(name: str, spec: dict[str, Any], where: Where) -> MergedDict:
    if unknown := sorted(spec.keys() - _MERGE_KEYS):
        raise TableError(
            where, f"{name}: unknown key `{unknown[0]}`", hint=f"known: {', '.join(sorted(_MERGE_KEYS))}"
        )
    return MergedDict(
        first=tuple(spec.get("first", [])),
        base=spec.get("base", {}),
        update=tuple(spec.get("update", [])),
        fill=spec.get("fill", {}),
        over=spec.get("over", {}),
        kind=tuple(spec.get("kind", [])),
        keys={kind: tuple(keys) for kind, keys in spec.get("keys", {}).items()},
    )


def _written(value: Any, source: TableSource, name: str) -> Any:
    where = source.where("config", "write", name)
    if isinstance(value, dict) and set(value) == {"expr"}:
        return expression_at(value["expr"], where)
    if isinstance(value, dict) and set(value) == {"value", "when"}:
        return Constant(value["value"], expression_at(value["when"], where))
    return value


def _entry(name: str, raw: Any, where: Where) -> FieldEntry:
    spec = {"field": raw} if isinstance(raw, str | list) else raw
    if not isinstance(spec, dict):
        raise TableError(where, f"{name}: expected a field's name or a table, found {raw!r}")
    for key in spec:
        if key not in _ENTRY_KEYS:
            raise TableError(
                where, f"{name}: unknown key `{key}`", hint=f"known: {', '.join(sorted(_ENTRY_KEYS))}"
            )
    if spec.get("as", "float") not in _SPELLINGS:
        raise TableError(
            where, f"{name}: unknown spelling `{spec['as']}`", hint=f"known: {', '.join(sorted(_SPELLINGS))}"
        )
    values = spec.get("values", [])
    if odd := next((pair for pair in values if len(pair) != 2), None):
        raise TableError(
            where,
            f"{name}: `values` must pair what a config says with what it means",
            cause=f"expected two items, found {odd!r}",
        )
    field = spec.get("field", [])
    fields = (field,) if isinstance(field, str) else tuple(field)
    return FieldEntry(
        name=name,
        where=where,
        fields=fields,
        write_to=spec.get("write_to", fields[0] if fields else None),
        values=tuple((theirs, ours) for theirs, ours in values),
        default=_literal_or_expression(spec.get("default"), where),
        has_default="default" in spec,
        each_layer=bool(spec.get("each_layer", False)),
        nullable=spec.get("nullable"),
        none_is=spec.get("none_is"),
        null_is=spec.get("null_is"),
        read=expression_at(spec["read"], where) if "read" in spec else None,
        write=expression_at(spec["write"], where) if "write" in spec else None,
        assumed=_literal_or_expression(spec.get("assumed"), where),
        has_assumed="assumed" in spec,
        fixed=_literal_or_expression(spec.get("fixed"), where),
        has_fixed="fixed" in spec,
        only=tuple(spec["only"]) if "only" in spec else None,
        contains=_words(spec.get("contains", {}), where),
        avoid=_words(spec.get("avoid", {}), where),
        write_as=spec.get("as"),
    )


def _literal_or_expression(value: Any, where: Where) -> Any:
    return expression_at(value, where) if isinstance(value, str) else value


def _words(spec: Any, where: Where) -> dict[str, Expression]:
    """Words of a name, and when they are in force: always, where only the words are given."""
    words = (
        {spec: "True"}
        if isinstance(spec, str)
        else dict.fromkeys(spec, "True")
        if isinstance(spec, list)
        else spec
    )
    return {word: expression_at(str(condition), where) for word, condition in words.items()}
