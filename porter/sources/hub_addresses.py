"""Addresses of pages on the Hub, as copied from a browser: which repository is meant.

No network takes part. A page of a repository's folder or of one weight file names less than a repository,
and is refused with what to type instead.
"""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

from porter.errors import UsageError
from porter.sources.weight_files import INDEX, container_by_suffix
from porter.wording import command

_ADDRESS = re.compile(
    r"(?P<scheme>https?://)?(?P<host>[^/?#\s]+)(?P<path>/?[^?#\s]*)(?:[?#]\S*)?", re.IGNORECASE
)
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
# Pages of the Hub that are no model's.
_OTHERS = ("datasets", "spaces", "docs", "papers", "collections", "blog", "api", "models", "organizations")
_VIEWS = ("tree", "blob", "resolve", "raw", "commit")


def repository_at(source: str) -> str | None:
    """`org/name` or `org/name@revision` of a page's address; None for what is no address of the Hub.

    Raises UsageError for a page that is no model's, and for one that names a part of a repository.
    """
    found = _ADDRESS.fullmatch(source)
    if found is None:
        return None
    own = _ADDRESS.fullmatch(os.environ.get("HF_ENDPOINT", ""))
    host = found["host"].lower()
    if host not in _HOSTS and not (found["scheme"] and own and host == own["host"].lower()):
        return None
    names = [unquote(name) for name in found["path"].split("/") if name]
    if len(names) < 2 or names[0] in _OTHERS:
        raise UsageError(
            f"{source!r} is no address of a model on the Hub",
            cause="expected https://huggingface.co/org/name",
            hint="open the model's own page and take its address, or say org/name",
        )
    repo, view, rest = "/".join(names[:2]), names[2:3], names[3:]
    if not view or view[0] not in _VIEWS or not rest:
        return repo
    revision, inside = rest[0], "/".join(rest[1:])
    reference = repo if revision == "main" else f"{repo}@{revision}"
    if view[0] == "tree" and inside:
        raise UsageError(
            f"{source!r} is a folder in a repository",
            cause="porter reads the files at the top of a repository",
            hint=f"{command('download', reference, include=f'{inside}/*', out='DIR')}, then name "
            f"DIR/{inside}",
        )
    if container_by_suffix(inside) is not None and not inside.endswith(INDEX):
        raise UsageError(
            f"{source!r} is one file of a repository",
            cause="porter takes a repository as a whole",
            hint=f"{reference}, or that file alone: "
            f"{command('download', reference, include=inside, out='DIR')}, "
            f"then name DIR/{inside}",
        )
    return reference
