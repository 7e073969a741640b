"""Short names of the Gemma releases, and how a source's text is read as a repository on the Hub.

Reading a name touches neither the network nor the Hub's client. That a repository exists is not decided
here. Sources of the table: the model cards of https://huggingface.co/google.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from porter.errors import UsageError
from porter.sources.hub_addresses import repository_at
from porter.sources.local import near_names
from porter.wording import at_command_line, option

_SCHEME = "hf://"
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_REPO = re.compile(rf"{_NAME}/{_NAME}")
# Git's own rule for names, as far as it keeps a revision from being mistaken for a path.
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_./+-]*")
# What a person writes for a file or a directory, never for a repository.
_PATHLIKE = re.compile(r"[/~.\\]|.*\\|.*\.(safetensors|gguf|bin|pth|pt|ckpt|h5|json)$|[A-Za-z]:")


@dataclass(frozen=True)
class Alias:
    """One release: its short name, repository, family, and number of parameters as people say it."""

    alias: str
    repo: str
    family: str
    parameters: str

    @property
    def licence_url(self) -> str:
        return licence_url(self.repo)


@dataclass(frozen=True)
class HubReference:
    """A repository on the Hub; `revision` is a branch, a tag or a commit, None for the default branch."""

    repo: str
    revision: str | None = None

    @property
    def label(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"

    @property
    def licence_url(self) -> str:
        return licence_url(self.repo)


def licence_url(repo: str) -> str:
    """The page on which a gated repository's licence is accepted."""
    return f"https://huggingface.co/{repo}"


def _release(family: str, parameters: str, *names: str) -> list[Alias]:
    return [Alias(name, f"google/{name}", family, parameters) for name in names]


ALIASES: dict[str, Alias] = {
    entry.alias: entry
    for entry in (
        *_release("gemma", "2.5 B", "gemma-2b", "gemma-2b-it", "gemma-1.1-2b-it"),
        *_release("gemma", "8.5 B", "gemma-7b", "gemma-7b-it", "gemma-1.1-7b-it"),
        *_release("gemma", "2.5 B", "codegemma-2b", "codegemma-1.1-2b"),
        *_release("gemma", "8.5 B", "codegemma-7b", "codegemma-7b-it", "codegemma-1.1-7b-it"),
        *_release("gemma2", "2.6 B", "gemma-2-2b", "gemma-2-2b-it", "gemma-2-2b-jpn-it"),
        *_release("gemma2", "9.2 B", "gemma-2-9b", "gemma-2-9b-it"),
        *_release("gemma2", "27.2 B", "gemma-2-27b", "gemma-2-27b-it"),
        *_release("gemma3_text", "0.27 B", "gemma-3-270m", "gemma-3-270m-it"),
        *_release("gemma3_text", "1.0 B", "gemma-3-1b-pt", "gemma-3-1b-it"),
        Alias("gemma-3-1b", "google/gemma-3-1b-pt", "gemma3_text", "1.0 B"),
    )
}


def find_source(source: str | Path) -> Path | HubReference:
    """What a source's text means. A path that exists always wins over an alias or a repository's name.

    Raises UsageError if it is neither a path that exists nor the name of anything on the Hub.
    """
    if source == "":
        raise UsageError(
            "an empty text names no checkpoint",
            cause="a variable may be unset",
            hint="name a directory, a file or a model; `.` is the directory here",
        )
    path = Path(source).expanduser()
    if isinstance(source, Path) or path.exists():
        return path
    return resolve(source) or path


def at_revision(source: str | None, revision: str | None) -> str | None:
    """A source's text with a revision; UsageError where there can be none."""
    if source is None or revision is None:
        if revision is not None:
            raise UsageError(
                f"{option('revision')} is of a model on the Hub, and none was named", hint="name the model"
            )
        return source
    found = None if source.startswith("kaggle://") else find_source(source)
    if not isinstance(found, HubReference):
        raise UsageError(
            f"{option('revision')} is of a model on the Hub, and {source} is none",
            hint="a version on Kaggle is the last part of its address" if found is None else "leave it out",
        )
    if found.revision is not None:
        raise UsageError(
            f"{source} names a revision, and {option('revision')} another way to say it",
            hint="say one of the two",
        )
    return f"{found.repo}@{revision}"


def resolve(source: str, *, here: bool = True) -> HubReference | None:
    """`hf://org/name[@revision]`, `org/name[@revision]`, `alias[@revision]` or the address of a model's page
    on the Hub; None for what reads as a path.

    Raises UsageError for an alias that does not exist and for a malformed address. What lies `here` is named
    in its hint, where it may be meant.
    """
    if (page := repository_at(source)) is not None:
        source = _SCHEME + page
    explicit = source.startswith(_SCHEME)
    name, at, revision = source.removeprefix(_SCHEME).partition("@")
    if not explicit and ("://" in source or not name or _PATHLIKE.match(name) or name.count("/") > 1):
        return None
    if at and not _REVISION.fullmatch(revision):
        raise UsageError(
            f"{source!r} names no revision after the @",
            cause=f"expected a branch, a tag or a commit, found {revision!r}",
            hint="for example google/gemma-2b@main",
        )
    if name in ALIASES:
        return HubReference(ALIASES[name].repo, revision or None)
    if _REPO.fullmatch(name):
        return HubReference(name, revision or None)
    if explicit:
        raise UsageError(
            f"{source!r} is no address of a model on the Hub",
            cause="expected hf://org/name or hf://org/name@revision",
        )
    if "/" in name:
        return None
    raise _unknown(name, here)


def _unknown(name: str, here: bool) -> UsageError:
    beside = [other for other in near_names(Path(name)) if other != name] if here else []
    near = beside or get_close_matches(name.lower(), ALIASES, n=3, cutoff=0.6)
    return UsageError(
        f"there is no checkpoint called {name!r}",
        cause="it is the short name of no model"
        if not here or Path(name).exists()
        else "it is neither a path that exists nor the short name of a model",
        hint=f"did you mean {' or '.join(near)}?"
        if near
        else "give a path, or a Hub repository as org/name; "
        f"`{'porter download --list' if at_command_line() else 'porter.list_models()'}` lists short names",
    )
