"""What callers of the Python functions may pass, brought into one form: a string where a list belongs is a
list of one, a path may be a string, and torch's own dtypes are as good as their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from porter.dtypes import Dtype, dtype_spoken
from porter.errors import UsageError


def as_list(value: str | Iterable[str], what: str) -> tuple[str, ...]:
    """Shell patterns. Raises UsageError for what are none."""
    if isinstance(value, str):
        return (value,)
    found = tuple(value) if isinstance(value, Iterable) else (value,)
    for item in found:
        if not isinstance(item, str):
            raise UsageError(f"{what} takes a pattern or a list of them, not {item!r:.80}")
    return found


def as_paths(value: str | Path | Iterable[str | Path], what: str) -> tuple[Path, ...]:
    found = (value,) if isinstance(value, str | Path) else value
    if not isinstance(found, Iterable):
        raise UsageError(f"{what} takes a path or a list of them, not {found!r:.80}")
    return tuple(as_path(item, what) for item in found)


def as_path(value: str | Path, what: str) -> Path:
    if not isinstance(value, str | Path):
        raise UsageError(f"{what} takes a path, not {value!r:.80}")
    return Path(value).expanduser()


def as_dtype(value: object) -> Dtype | None:
    """A dtype by its name or as torch's own value (torch is not imported to know it); None for "keep"."""
    if type(value).__module__ == "torch" and type(value).__name__ == "dtype":
        value = str(value).removeprefix("torch.")
    if not isinstance(value, str):
        raise UsageError(
            f"no dtype is called {value!r:.80}",
            hint="one of keep, bfloat16, float16, float32, or torch's own",
        )
    return None if value == "keep" else dtype_spoken(value)


def unused_patterns(patterns: Sequence[str], names: Iterable[str]) -> list[str]:
    """Patterns that fit no name: most often a slip of the pen."""
    from fnmatch import fnmatchcase

    known = list(names)
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in known)]
