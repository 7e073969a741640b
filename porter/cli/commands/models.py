"""`porter models`: what is supported, in users' words."""

from __future__ import annotations

from porter.cli import output
from porter.cli.options import JsonOption, MapOption, MappingsOption


def models(
    map: MapOption = [],  # noqa: B006
    mappings: MappingsOption = [],  # noqa: B006
    json: JsonOption = False,
) -> None:
    """List the models that porter knows, and the dialects that each is read and written in.

    Examples:
      porter models
      porter models --json
    """
    from porter.api.supported import list_models

    found = list_models([*mappings, *map])
    if json:
        output.as_json({"models": output.to_plain(found)})
        return
    rows = [["Models", "Family", *_USUAL, "also"]]
    for one in found:
        marks = ["⇄" if name in one.written else "→" if name in one.read else "" for name in _USUAL]
        also = [name for name in one.read if name not in (*_USUAL, "litgpt-legacy")]
        rows.append([one.models, one.family, *marks, ", ".join(also)])
    output.table(rows, drop=(7,))
    output.data("⇄ read and written, → read; where litgpt is, litgpt-legacy is as well")
    output.note("`porter download --list` lists the short names of Gemma's releases")


# Dialects with a column of their own.
_USUAL = ("hf", "litgpt", "keras", "flax", "gguf")
