"""Help as text: what a command does, how it is called, examples, and its options in groups.

Examples stand in a command's docstring, under a line `Examples:`. A group is an option's `rich_help_panel`.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from porter.cli import output

_WIDEST = 100
_LEFT = 28
_OPTIONS = "Options"
# The order in which groups are shown; others follow.
_ORDER = (_OPTIONS, "What", "Source", "How", "Safety", "Output", "Everywhere")

Rows = list[tuple[str, str]]


def help_text(command: Any, context: Any) -> str:
    """The whole help of a command or of a group of commands."""
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    summary, examples = described(command)
    lines = [*_filled(summary, width), "", f"{output.heading('Usage:')} {usage(command, context)}"]
    if examples:
        lines += ["", output.heading("Examples:"), *(f"  {line}" for line in examples)]
    for heading, rows in sections(command, context):
        lines += ["", output.heading(f"{heading}:"), *_columns(rows, width)]
    return "\n".join(lines) + "\n"


def described(command: Any) -> tuple[list[str], list[str]]:
    """A command's paragraphs, and its examples as they are typed."""
    text, _, examples = (command.help or "").partition("Examples:")
    # A part under `\b` keeps its lines.
    paragraphs = [
        part.strip("\b\n") if "\b" in part else " ".join(part.split())
        for part in text.strip().split("\n\n")
        if part.strip(" \b\n")
    ]
    return paragraphs, textwrap.dedent(examples.strip("\n")).rstrip().splitlines()


def usage(command: Any, context: Any) -> str:
    """`porter convert [SRC] [OPTIONS]`."""
    if getattr(command, "commands", None):
        return f"{context.command_path} COMMAND [OPTIONS]"
    arguments = [_argument(item) for item in command.params if item.param_type_name == "argument"]
    return " ".join([context.command_path, *arguments, "[OPTIONS]"])


def sections(command: Any, context: Any) -> list[tuple[str, Rows]]:
    """Commands, arguments and options under their headings."""
    found: dict[str, Rows] = {}
    for name, item in getattr(command, "commands", {}).items():
        heading = getattr(item, "rich_help_panel", None) or "Commands"
        found.setdefault(heading, []).append((name, described(item)[0][0]))
    options: dict[str, Rows] = {}
    for item in command.get_params(context):
        if getattr(item, "hidden", False):
            continue
        if item.param_type_name == "argument":
            if item.help:
                found.setdefault("Arguments", []).append((_argument(item).strip("[]"), item.help))
            continue
        group = getattr(item, "rich_help_panel", None) or (
            "Everywhere" if "--help" in item.opts and not found.get("Commands") else _OPTIONS
        )
        options.setdefault(group, []).append((_names(item), _told(item)))
    ranked = sorted(options, key=lambda group: _ORDER.index(group) if group in _ORDER else len(_ORDER))
    return [*found.items(), *((group, options[group]) for group in ranked)]


def _argument(item: Any) -> str:
    name = item.metavar or item.name.upper()
    more = "..." if item.nargs != 1 else ""
    return f"{name}{more}" if item.required else f"[{name}{more}]"


def _names(item: Any) -> str:
    short = [name for name in item.opts if not name.startswith("--")]
    long = [name for name in (*item.opts, *item.secondary_opts) if name.startswith("--")]
    value = "" if item.is_flag else f" {item.metavar or item.name.upper()}"
    return ", ".join([*short, *long]) + value


def _told(item: Any) -> str:
    if item.is_flag or item.default in (None, "", [], ()) or callable(item.default):
        return str(item.help or "")
    value = getattr(item.default, "value", item.default)
    return f"{item.help} Default: {value}."


def _columns(rows: Rows, width: int) -> Iterable[str]:
    left = min(max(len(name) for name, _ in rows), _LEFT) + 4
    for name, text in rows:
        first, *rest = textwrap.wrap(text, max(width - left, 20), break_long_words=False) or [""]
        shown = f"  {name}"
        if len(shown) + 2 > left:
            yield shown
            yield " " * left + first
        else:
            yield (shown.ljust(left) + first).rstrip()
        yield from (" " * left + line for line in rest)


def _filled(paragraphs: Sequence[str], width: int) -> list[str]:
    lines: list[str] = []
    for paragraph in paragraphs:
        if "\n" in paragraph:
            lines += ["", *paragraph.split("\n")]
            continue
        lines += ["", *textwrap.wrap(paragraph, width)] if lines else textwrap.wrap(paragraph, width)
    return lines
