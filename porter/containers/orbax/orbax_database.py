"""tensorstore, and the key-value database that an OCDBT checkpoint is kept in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from porter.errors import MalformedError, UnsupportedError
from porter.reading.regular import check_regular
from porter.system.extras import install_line

DATABASE = "manifest.ocdbt"

# Bytes. It holds the roots of trees that lie in other files: some hundred.
_MAX_MANIFEST = 16 << 20

_METADATA = ("/.zarray", "/zarr.json")


def tensorstore() -> Any:
    """The tensorstore package. Raises UnsupportedError where it is not installed."""
    try:
        import tensorstore as found
    except ImportError:
        raise UnsupportedError(
            "this Orbax checkpoint keeps its arrays in a form that needs tensorstore to be read",
            hint=f"{install_line('orbax')} (the extra orbax)",
        ) from None
    return found


def database(base: Path) -> Any:
    """The key-value store of an OCDBT checkpoint. Raises MalformedError if it cannot be opened."""
    package = tensorstore()
    try:
        return package.KvStore.open(store_of(base)).result()
    except (ValueError, OSError) as error:
        raise MalformedError(f"{base.name} cannot be opened", cause=str(error)[:300]) from None


def database_keys(base: Path) -> dict[str, bytes]:
    """The keys of an OCDBT checkpoint: with their content where it is an array's metadata, else with b""."""
    store = database(base)
    try:
        keys = [key.decode() for key in store.list().result()]
        return {key: bytes(store[key]) if key.endswith(_METADATA) else b"" for key in keys}
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise MalformedError(f"{base.name} cannot be listed", cause=str(error)[:300]) from None


def store_of(base: Path) -> dict[str, Any]:
    # tensorstore reads it whole, and ends the process where there is no memory for it.
    check_regular(base / DATABASE, DATABASE, _MAX_MANIFEST)
    return {"driver": "ocdbt", "base": files_of(base)}


def files_of(directory: Path) -> dict[str, Any]:
    return {"driver": "file", "path": f"{directory.resolve()}/"}
