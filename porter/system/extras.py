"""What to install for an extra of porter's: the packages themselves, which any index has."""

from __future__ import annotations

import re

_DISTRIBUTION = "weight-porter"
# A requirement of an extra as a distribution's metadata spell it: `h5py>=3.10; extra == 'keras'`.
_EXTRA = re.compile(
    r"(?P<wanted>(?P<package>[\w.-]+)[^;]*?)\s*;.*\bextra\s*==\s*['\"](?P<extra>[\w.-]+)['\"]"
)


def extras() -> dict[str, list[tuple[str, str]]]:
    """Porter's extras, each with its requirements: the package's name, and as `pip install` takes it."""
    # Not needed until something is missing.
    from importlib.metadata import PackageNotFoundError, requires

    found: dict[str, list[tuple[str, str]]] = {}
    try:
        wanted = requires(_DISTRIBUTION) or ()
    except PackageNotFoundError:
        return found
    for requirement in wanted:
        if match := _EXTRA.match(requirement):
            found.setdefault(match["extra"], []).append((match["package"], match["wanted"]))
    return found


def install_line(extra: str) -> str:
    """The command that installs what an extra asks for, wherever porter itself was installed from."""
    wanted = [text for package, text in extras().get(extra, ()) if package != _DISTRIBUTION]
    if not wanted:
        return f"pip install 'weight-porter[{extra}]'"
    return "pip install " + " ".join(f"'{text}'" for text in wanted)
