"""A command line as it is typed when TAB is pressed: its words, and what could stand at its end.

Shells quote in much the same way: backslashes, single and double quotes. Each hands over what stands before
the cursor, raw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import typer


@dataclass(frozen=True)
class Line:
    """The words before the cursor, without their quotes. The last one, `current`, is being typed.

    `kept` is how much of it a shell leaves alone that breaks words at certain characters.
    """

    words: tuple[str, ...]
    current: str
    kept: int


@dataclass(frozen=True)
class Offer:
    """A word that could stand at the cursor, and what it is for."""

    text: str
    help: str = ""


def read_line(text: str, breaks: str = "") -> Line:
    """The words of a line that may end within quotes. A shell breaks words at the characters `breaks` too."""
    words: list[str] = []
    word: list[str] = []
    begun, quote, kept = False, "", 0
    at = 0
    while at < len(text):
        one = text[at]
        at += 1
        if quote:
            if one == quote:
                quote = ""
            elif one == "\\" and quote == '"' and text[at : at + 1] in ('"', "\\", "$", "`"):
                word.append(text[at])
                at += 1
            else:
                word.append(one)
        elif one in "'\"":
            begun, quote = True, one
        elif one == "\\":
            begun = True
            word += text[at : at + 1]
            at += 1
        elif one in " \t\n":
            if begun:
                words.append("".join(word))
            word, begun, kept = [], False, 0
        else:
            begun = True
            word.append(one)
            kept = len(word) if one in breaks else kept
    return Line(tuple(words), "".join(word), kept)


def offers(root: Any, line: Line) -> list[Offer]:
    """What could stand at the end of a line whose first word runs the application `root`."""
    command, context = root, typer.Context(root, info_name="porter")
    given: list[str] = []
    seen: set[str] = set()
    waiting: Any = None
    plain = False
    for word in line.words[1:]:
        option, joined = (None, "") if plain or waiting else _option(command, context, word)
        if waiting is not None:
            waiting = None
        elif word == "--" and not plain:
            plain = True
        elif option is not None:
            seen |= set() if option.multiple else {*option.opts, *option.secondary_opts}
            waiting = None if option.is_flag or joined else option
        elif getattr(command, "commands", None):
            if word not in command.commands:
                return []
            command = command.commands[word]
            context = typer.Context(command, info_name=word, parent=context)
            seen.clear()
        elif plain or not word.startswith("-"):
            given.append(word)
    if given:
        context.params[_argument(command, 0).name if _argument(command, 0) else ""] = given[0]
    if waiting is not None:
        return _values(waiting, context, line.current)
    if line.current.startswith("-") and not plain:
        name, joined, value = line.current.partition("=")
        option, _ = _option(command, context, name)
        if joined:
            found = [] if option is None or option.is_flag else _values(option, context, value)
            return [Offer(f"{name}={offer.text}", offer.help) for offer in found]
        return _options(command, context, line.current, seen)
    if getattr(command, "commands", None):
        return [
            Offer(name, _first_line(item.help))
            for name, item in command.commands.items()
            if name.startswith(line.current)
        ]
    argument = _argument(command, len(given))
    if argument is None:
        return [] if line.current else _options(command, context, "--", seen)
    return _values(argument, context, line.current)


def _option(command: Any, context: Any, word: str) -> tuple[Any, str]:
    """The option that a word names, and the `=` that a value follows in the same word."""
    name, joined, _ = word.partition("=")
    for item in command.get_params(context):
        if item.param_type_name == "option" and name in (*item.opts, *item.secondary_opts):
            return item, joined
    return None, ""


def _options(command: Any, context: Any, incomplete: str, seen: set[str]) -> list[Offer]:
    return [
        Offer(name, item.help or "")
        for item in command.get_params(context)
        if item.param_type_name == "option" and not getattr(item, "hidden", False)
        for name in (*item.opts, *item.secondary_opts)
        if name.startswith(incomplete) and (name.startswith("--") or incomplete == name) and name not in seen
    ]


def _argument(command: Any, position: int) -> Any:
    """The argument at a position; the last one may take any number."""
    arguments = [item for item in command.params if item.param_type_name == "argument"]
    if position < len(arguments):
        return arguments[position]
    return arguments[-1] if arguments and arguments[-1].nargs == -1 else None


def _values(item: Any, context: Any, incomplete: str) -> list[Offer]:
    # Where nothing is known, Typer offers what was typed, as a file.
    found = item.shell_complete(context, incomplete)
    return [Offer(one.value, one.help or "") for one in found if one.type == "plain"]


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]
