"""YAML from strangers: one document of mappings, lists and JSON's scalars, from the parser's events.

What YAML 1.1 adds is refused by name, for each is a way to write much with little (anchors and aliases, base
60) or a value that two readers take for two things (`yes`, octal numbers, dates, tags). All else is what
PyYAML's `safe_load` makes of it.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

from porter.errors import MalformedError
from porter.reading.json_text import MAX_DIGITS
from porter.untrusted import quoted

# Bytes and values. LitGPT's model_config.yaml has about 60 lines; one with lists by layer some hundred more.
MAX_BYTES = 256 << 10
_MOST_VALUES = 20_000
_MAX_UNLIKE = 32 << 10
_DEEPEST = 32

# What PyYAML's two scanners do not read alike, or may begin it.
_UNLIKE = re.compile(rb"[\t|>]")
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"(true|True|TRUE)|false|False|FALSE")
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
# YAML 1.1 knows no sign before a point.
_FLOAT = re.compile(r"(?:[-+]?[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?")


def parse_yaml(text: bytes, name: str) -> Any:
    """The value of a YAML document in UTF-8; `name` is what errors call the file. Raises MalformedError."""
    import yaml

    if len(text) > MAX_BYTES:
        _refuse(name, f"expected at most {MAX_BYTES:,} bytes, found {len(text):,}")
    try:
        # The loader in C where PyYAML was built with it; of tabs and blocks it takes more than `safe_load`.
        unlike = _UNLIKE.search(text)
        loader = yaml.SafeLoader if unlike else getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        if unlike and len(text) > _MAX_UNLIKE:
            found = "tabs" if unlike[0] == b"\t" else f"`{unlike[0].decode()}`"
            _refuse(name, f"expected no {found} in more than {_MAX_UNLIKE:,} bytes, found some")
        events = yaml.parse(text.decode(), Loader=loader)
        return _build(yaml, events, yaml.SafeLoader.yaml_implicit_resolvers, name)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark is not None else ""
        _refuse(name, f"{getattr(error, 'problem', None) or str(error).splitlines()[0]}{line}")
    except UnicodeDecodeError as error:
        _refuse(name, f"expected UTF-8, found byte {error.object[error.start]:#04x} at {error.start}")


def _build(yaml: Any, events: Any, resolvers: Any, name: str) -> Any:
    """The value that the events make; each container is open from its start to its end."""
    stack: list[Any] = []
    keys: list[Any] = []
    result: Any = None
    documents = count = 0
    missing = object()
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                _refuse(name, "expected one document, found more")
            continue
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            _refuse(name, f"expected no anchors and aliases, found one{_line(event)}")
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event, resolvers, name)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            if event.tag is not None:
                _refuse(name, f"expected no tags, found {quoted(event.tag)}{_line(event)}")
            stack.append({} if isinstance(event, yaml.MappingStartEvent) else [])
            keys.append(missing)
            if len(stack) > _DEEPEST:
                _refuse(name, f"expected at most {_DEEPEST} levels, found it nested deeper")
            continue
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            value = stack.pop()
            keys.pop()
        else:
            continue
        count += 1
        if count > _MOST_VALUES:
            _refuse(name, f"expected at most {_MOST_VALUES:,} values, found more")
        if not stack:
            result = value
        elif isinstance(stack[-1], list):
            stack[-1].append(value)
        elif keys[-1] is missing:
            if isinstance(value, dict | list):
                _refuse(name, f"expected a plain key, found a {type(value).__name__}{_line(event)}")
            keys[-1] = value
        else:
            stack[-1][keys[-1]] = value
            keys[-1] = missing
    return result


def _scalar(event: Any, resolvers: Any, name: str) -> Any:
    text: str = event.value
    # `!` alone too, which one of PyYAML's parsers takes for a text and the other for nothing.
    if event.tag is not None:
        _refuse(name, f"expected no tags, found {quoted(event.tag)}{_line(event)}")
    if not event.implicit[0]:
        return text
    if _NULL.fullmatch(text):
        return None
    if found := _BOOL.fullmatch(text):
        return found[1] is not None
    if len(text) <= MAX_DIGITS and _WHOLE.fullmatch(text):
        return int(text)
    if len(text) <= MAX_DIGITS and _FLOAT.fullmatch(text):
        return float(text)
    if len(text) > MAX_DIGITS:
        if text.lstrip("-+")[:1].isdigit() and re.fullmatch(r"[-+0-9a-fA-FxXoO_:.]+", text):
            _refuse(name, f"expected a number of at most {MAX_DIGITS} digits, found {len(text):,} characters")
        return text
    for tag, pattern in (*resolvers.get(text[:1], ()), *resolvers.get(None, ())):
        if pattern.match(text):
            kind = tag.rpartition(":")[2]
            _refuse(name, f"{quoted(text)} is {_KINDS.get(kind, kind)} to YAML alone{_line(event)}")
    return text


_KINDS = {"bool": "a truth value", "int": "a number", "float": "a number", "timestamp": "a date"}


def _line(event: Any) -> str:
    return f" in line {event.start_mark.line + 1}"


def _refuse(name: str, cause: str) -> NoReturn:
    raise MalformedError(f"{name} cannot be parsed", cause=cause)
