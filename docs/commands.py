"""Makes docs/commands.md from the help of the commands: `python docs/commands.py`. A test compares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from porter.cli.app import app
from porter.cli.help import described, sections, usage

PAGE = Path(__file__).resolve().parent / "commands.md"
_HEAD = """# Commands

Made by `python docs/commands.py` from what `porter COMMAND --help` prints. These stand before or behind every
command: `--quiet`, `--color`, `--offline`, `--debug`.
"""


def page() -> str:
    root: Any = typer.main.get_command(app)
    parts = [_HEAD]
    for path, command in commands(root, ("porter",)):
        context: Any = None
        for name in path[:-1]:
            context = typer.Context(root, info_name=name, parent=context)
        context = typer.Context(command, info_name=path[-1], parent=context)
        parts.append(_command(path, command, context))
    return "\n".join(parts)


def commands(group: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    """Every command with its path; a group's own stand in the place of the group."""
    found = []
    for name, item in group.commands.items():
        inside = getattr(item, "commands", None)
        found += commands(item, (*path, name)) if inside else [((*path, name), item)]
    return found


def _command(path: tuple[str, ...], command: Any, context: Any) -> str:
    summary, examples = described(command)
    told = "\n\n".join(summary).split("\n")
    lines = [f"## {' '.join(path)}", "", *told, "", f"Usage: `{usage(command, context)}`", ""]
    if examples:
        lines += ["```text", *examples, "```", ""]
    for heading, rows in sections(command, context):
        if heading == "Everywhere":
            continue
        cells = ([text.replace("|", "\\|") for text in row] for row in rows)
        lines += [f"| {heading} | |", "| --- | --- |"]
        lines += [f"| `{left}` | {right} |" for left, right in cells]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
