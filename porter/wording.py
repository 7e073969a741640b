"""What somebody is told to pass or to run, in the words of whoever is told: `--to keras` at the command line,
`to="keras"` in Python.

A message names an option by what it is and never spells it. Only the command line says that it is one; until
then everything is worded for Python.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Options that Python has under another name; of all others `-` becomes `_`.
_PYTHON = {"from": "source_dialect", "as": "out_dialect", "map": "maps", "mappings": "maps"}

# What is short at the command line.
_TYPED = {"out": "-o"}

# Whether words are meant for the command line. Threads of a run word errors too, so it is the process's.
_typed = False

# Options that what is called now has under another name: of two checkpoints each has its own.
_renamed: ContextVar[dict[str, str] | None] = ContextVar("renamed", default=None)


@contextmanager
def typed() -> Iterator[None]:
    """What is worded in here is for the command line."""
    global _typed
    before, _typed = _typed, True
    try:
        yield
    finally:
        _typed = before


@contextmanager
def renamed(names: dict[str, str]) -> Iterator[None]:
    """In here options have other names, such as `as` for `from` where the second of two is opened."""
    token = _renamed.set(names)
    try:
        yield
    finally:
        _renamed.reset(token)


def at_command_line() -> bool:
    """Whether words are meant for the command line; for what there is in no other place."""
    return _typed


def option(name: str, *values: str) -> str:
    """An option by its name at the command line, with a value or with those there are to choose from.

    >>> option("max-shard-size"), option("dtype", "float32"), option("from", "hf", "keras")
    ('max_shard_size=', 'dtype="float32"', 'source_dialect="hf"|"keras"')
    """
    name = (_renamed.get() or {}).get(name, name)
    if _typed:
        return f"{_TYPED.get(name, f'--{name}')} {'|'.join(map(shlex.quote, values))}".rstrip()
    return f"{_python(name)}={'|'.join(map(_literal, values))}"


def flag(name: str) -> str:
    """An option without a value: `--force`, `force=True`; `--no-resume`, `resume=False`."""
    if _typed:
        return f"--{name}"
    plain = name.removeprefix("no-")
    return f"{_python(plain)}={plain == name}"


def command(name: str, *arguments: str, **options: str | bool) -> str:
    """A command as it is typed, or the function of the same name.

    >>> command("download", "gemma-2b", include="*.gguf"), command("doctor", clean=True)
    ('porter.download("gemma-2b", include="*.gguf")', 'porter.doctor(clean=True)')
    """
    if _typed:
        words = [
            flag(key) if value is True else option(key, str(value)) for key, value in options.items() if value
        ]
        return " ".join(["porter", name, *map(shlex.quote, arguments), *words])
    named = [
        f"{_python(key)}={value if value is True else _literal(str(value))}" for key, value in options.items()
    ]
    return f"porter.{name}({', '.join([*map(_literal, arguments), *named])})"


def _python(name: str) -> str:
    return _PYTHON.get(name, name.replace("-", "_"))


def _literal(text: str) -> str:
    # Python's own, but for the quotes that its users write.
    return '"' + repr("'" + text)[2:-1] + '"' if '"' not in text else repr(text)
