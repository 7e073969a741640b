"""What is typed, before it reaches a command: commands in groups, porter's own help, errors in porter's form.

Typer brings its own parser, whose classes are not imported here: its errors are known by what they have.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

from porter.cli import output
from porter.cli.help import described, help_text, usage
from porter.errors import PorterError, UsageError


def _plainly_cast(items: list[Any]) -> list[Any]:
    """Parameters that take text, paths and words of a set as they are.

    Typer would build a validator for each, with a library whose import takes a third of the time of an
    `inspect`. Whatever else is typed, and what is wrong, still goes its way.
    """
    for item in items:
        kind = getattr(item, "type_descriptor", None)
        if kind is not None and "process_value" not in vars(item):
            item.process_value = partial(_cast, item, kind.annotation, item.process_value)
    return items


def _cast(item: Any, kind: Any, other: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    several = get_origin(kind) is list
    one = get_args(kind)[0] if several else kind
    if value is None and not item.required:
        nothing = () if several else None
        return nothing if item.callback is None else item.callback(context, item, nothing)
    if item.callback is not None or value is None or value == ():
        return other(context, value)
    if type(value) is kind:
        return value
    if not (isinstance(one, type) and issubclass(one, str | Path)):
        return other(context, value)
    try:
        return [one(part) for part in value] if several else one(value)
    except ValueError:
        return other(context, value)


class Command(TyperCommand):
    """A command with porter's help."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _plainly_cast(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_text(self, ctx))


class Group(TyperGroup):
    """A group with porter's help, which says what cannot be understood as every other error is said."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _plainly_cast(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_text(self, ctx))

    def main(  # type: ignore[override]  # what else there is goes through as it came
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        extra["standalone_mode"] = False
        try:
            code = super().main(args, prog_name or "porter", **extra)
        except typer.Abort:
            code = 1
        except Exception as problem:
            if not hasattr(problem, "format_message"):
                raise
            words = sys.argv[1:] if args is None else args
            error = _not_understood(problem, next((word for word in words if word in self.commands), ""))
            output.error(error)
            code = error.exit_code
        sys.exit(code if isinstance(code, int) else 0)


class App(typer.Typer):
    """A Typer whose commands and groups are these."""

    def __init__(self, **given: Any) -> None:
        super().__init__(
            cls=Group,
            invoke_without_command=True,
            pretty_exceptions_enable=False,
            # Porter's own: `porter.cli.shells`.
            add_completion=False,
            context_settings={"help_option_names": ["-h", "--help"]},
            **given,
        )

    def command(self, name: str | None = None, **given: Any) -> Callable[..., Any]:
        return super().command(name, **{"cls": Command, **given})


def show_help(context: typer.Context) -> None:
    """What a group prints where no command was named."""
    if context.invoked_subcommand is None:
        sys.stderr.write(context.get_help() + "\n")
        raise typer.Exit(2)


def _not_understood(problem: Any, command: str) -> PorterError:
    context = getattr(problem, "ctx", None)
    path = context.command_path if context is not None else f"porter {command}".rstrip()
    more = f"`{path} --help` lists what there is"
    if hasattr(problem, "possibilities"):
        return _no_option(problem, path, more)
    text = problem.format_message().rstrip(".").replace("Value error, ", "")
    if "extra argument" in text and context is not None:
        extra = text.rpartition(" (")[2].rstrip(")").split()
        return UsageError(
            f"{path} does not know what to do with {' '.join(extra)}", hint=_meant(extra[0], context)
        )
    if text.startswith("Missing argument") and context is not None:
        return UsageError(text[:1].lower() + text[1:], hint=usage(context.command, context))
    if "'--to' requires an argument" in text:
        return UsageError(
            "--to names a dialect, and none follows it",
            hint="for example --to litgpt; without --to porter says where this source can go",
        )
    if context is not None and (text.startswith("Missing option") or "requires an argument" in text):
        name = text.partition("'--")[2].partition("'")[0]
        shown = (line for line in described(context.command)[1] if f"--{name} " in line)
        example = next(shown, "").partition("  #")[0].rstrip()
        return UsageError(text[:1].lower() + text[1:], hint=f"for example {example}" if example else more)
    if text.startswith("No such command"):
        # "No such command 'konvert'. Did you mean 'convert'?"
        said, _, near = text.partition(". Did you mean ")
        name = said.partition("'")[2].rstrip("'")
        meant = _COMMANDS.get((path, name.lower())) or near.rstrip("?").strip("'")
        return UsageError(
            f"{path} has no command {name}", hint=f"did you mean `{path} {meant}`?" if meant else more
        )
    return UsageError(text[:1].lower() + text[1:], hint=more)


# Words for commands that other tools have.
_COMMANDS = {
    **{("porter", word): "convert" for word in ("port", "export", "migrate", "transform")},
    **{("porter", word): "inspect" for word in ("show", "info", "describe", "print", "ls")},
    **{("porter", word): "download" for word in ("pull", "fetch", "get")},
    **{("porter", word): "verify" for word in ("validate", "test")},
    ("porter", "compare"): "diff",
    ("porter", "hash"): "fingerprint",
    ("porter", "list"): "models",
    ("porter", "clean"): "doctor --clean",
    ("porter", "env"): "doctor",
    ("porter", "help"): "--help",
    ("porter", "version"): "--version",
    **{("porter mappings", word): "ls" for word in ("list", "all")},
    **{("porter mappings", word): "new" for word in ("begin", "create", "init", "start", "add")},
    **{("porter mappings", word): "show" for word in ("print", "cat", "view", "get", "inspect")},
    **{("porter mappings", word): "check" for word in ("validate", "test", "verify", "lint")},
}

# Options that other commands or other tools have, and what is meant here.
_ELSEWHERE = {
    "--token": "a token is no option, which others could see: `hf auth login`, or the variable HF_TOKEN",
    "--to": "--as DIALECT shows a model in another dialect, and porter convert --to DIALECT makes it",
    "--output": "-o DIR, or --out DIR",
    "--outdir": "-o DIR, or --out DIR",
    "--source": "the model is named without an option: porter convert gemma-2b --to litgpt",
    "--model": "the model is named without an option: porter convert gemma-2b --to litgpt",
    "--as": "--to DIALECT",
    "--verbose": "--debug shows tracebacks, --explain how a plan is run",
    "--overwrite": "--force",
    "--list": "porter models lists the families, porter download --list the short names",
    "--install-completion": "porter completion --install",
    "--show-completion": "porter completion",
    "-v": "--version shows the version, --debug tracebacks",
    "-V": "--version",
    "--yes": "porter asks nothing; --force replaces a directory that porter wrote",
}


def _no_option(problem: Any, path: str, more: str) -> PorterError:
    name = problem.option_name
    here = {option for item in problem.ctx.command.params for option in item.opts} if problem.ctx else set()
    if name in _ELSEWHERE and not (name == "--to" and path != "porter inspect"):
        hint = _ELSEWHERE[name]
    else:
        # Below this likeness a guess misleads: `--list` is as near to `--quiet` as to anything.
        near = get_close_matches(name, sorted(here), n=1, cutoff=0.75)
        hint = f"did you mean {' or '.join(near)}?" if near else more
    return UsageError(f"{path} has no option {name}", hint=hint)


def _meant(word: str, context: Any) -> str:
    """What a word too many may be for: `porter convert gemma-2b litgpt`, `porter convert gemma-2b out/`."""
    from porter.tables.catalogue import shipped_dialects
    from porter.tables.dialect_names import dialect_named

    options = {option for item in context.command.params for option in item.opts}
    if dialect := dialect_named(word, shipped_dialects()):
        for option in ("--to", "--as", "--from"):
            if option in options:
                return f"{option} {dialect}"
    if "--out" in options:
        return f"the output is named with an option: -o {word}"
    takes = any(item.param_type_name == "argument" for item in context.command.params)
    return "name one model at a time" if takes else f"`{context.command_path} --help` lists what there is"
