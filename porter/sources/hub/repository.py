"""The Hugging Face Hub: what a repository holds at a commit, and what of it lies in the Hub's own cache.

Everything goes through `huggingface_hub` (1.3 to 2.x), which is imported only when it is needed, so its
settings hold: HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and the rest. Nothing here fetches a weight.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from porter.errors import UsageError
from porter.sources.hub.hub_errors import offline_error, translated
from porter.sources.hub.hub_retry import asked_again
from porter.sources.hub.listing import RepoFile, RepoListing, complete
from porter.sources.names import HubReference, resolve

DEFAULT_REVISION = "main"

# Seconds. Listing is one request; a server that says nothing for so long will not.
_LIST_TIMEOUT = 30.0

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

# Beside the cache's own folders: names of the contents whose digest has not been compared yet.
UNVERIFIED = ".porter-unverified"


def is_commit(revision: str) -> bool:
    return bool(_COMMIT.fullmatch(revision))


def is_offline() -> bool:
    """Whether the Hub's client has been told to stay offline (HF_HUB_OFFLINE)."""
    from huggingface_hub import is_offline_mode

    return bool(is_offline_mode())


def reference(source: str | HubReference, revision: str | None = None) -> HubReference:
    """The repository that `source` names. Raises UsageError if it names none, or two different revisions."""
    ref = source if isinstance(source, HubReference) else resolve(source, here=False)
    if ref is None:
        raise UsageError(
            f"{source!r} is no model on the Hub",
            cause="it reads as a path",
            hint="give a short name such as gemma-2b, or org/name",
        )
    if revision is None or revision == ref.revision:
        return ref
    if ref.revision is not None:
        raise UsageError(f"two revisions were given: {ref.revision} and {revision}")
    return HubReference(ref.repo, revision)


def cache_folder(repo: str) -> Path:
    """Where the Hub's cache keeps a repository; it need not exist."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    return Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")


def cached_directory(ref: HubReference) -> Path | None:
    """The snapshot directory that the cache has for a reference, complete or not. No network."""
    folder = cache_folder(ref.repo)
    revision = ref.revision or DEFAULT_REVISION
    commit = revision
    if not is_commit(revision):
        commit = _commit_of(folder / "refs" / revision)
    snapshot = folder / "snapshots" / commit
    return snapshot if is_commit(commit) and snapshot.is_dir() else None


def cached_snapshot(ref: HubReference) -> Path | None:
    """The snapshot directory of a reference if config and all weights are in the cache. No network."""
    snapshot = cached_directory(ref)
    return snapshot if snapshot is not None and _whole(snapshot) else None


def _commit_of(ref: Path) -> str:
    """What the cache notes for a revision's name; empty if nothing legible."""
    try:
        return ref.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def last_downloaded() -> Path | None:
    """The snapshot directory of the complete model that the cache was last asked to hold. No network."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    asked: dict[Path, float] = {path: path.stat().st_mtime for path in cache.glob("models--*/snapshots/*")}
    # A download for which nothing had to be fetched writes only its revision's name anew.
    for folder in cache.glob("models--*/refs"):
        for path in filter(Path.is_file, folder.rglob("*")):
            snapshot = folder.parent / "snapshots" / _commit_of(path)
            if snapshot in asked:
                asked[snapshot] = max(asked[snapshot], path.stat().st_mtime)
    newest_first = sorted(asked, key=lambda path: -asked[path])
    return next((path for path in newest_first if _whole(path)), None)


def _whole(snapshot: Path) -> bool:
    """Whether config and all weights are there, and none whose digest has not been compared."""
    if not snapshot.is_dir() or not complete(snapshot):
        return False
    # A run that was stopped between the last byte and the digest leaves its file unproven.
    pending = unverified(snapshot.parent.parent)
    return not any(path.resolve().name in pending for path in snapshot.rglob("*"))


def unverified(folder: Path) -> frozenset[str]:
    """The contents in a repository's cache folder whose digest has not been compared yet."""
    marks = folder / UNVERIFIED
    return frozenset(path.name for path in marks.iterdir()) if marks.is_dir() else frozenset()


def cached_listing(ref: HubReference, snapshot: Path) -> RepoListing:
    """The files of a cached snapshot as a listing; digests from the names of the cache's blobs."""
    files = []
    for path in sorted(snapshot.rglob("*")):
        if path.is_file():
            digest = path.resolve().name if path.is_symlink() else ""
            sha256 = digest if _SHA256.fullmatch(digest) else None
            blob_id = digest if _COMMIT.fullmatch(digest) else None
            name = path.relative_to(snapshot).as_posix()
            files.append(RepoFile(name, path.stat().st_size, sha256, blob_id))
    return RepoListing(ref.repo, snapshot.name, tuple(files))


def list_files(ref: HubReference, token: str | None = None) -> RepoListing:
    """What a repository holds, in one request: commit, sizes, digests. Raises PorterError and its kinds."""
    if is_offline():
        raise offline_error(ref)
    with translated(ref, token):
        from huggingface_hub import HfApi

        info = asked_again(
            lambda: HfApi().model_info(
                ref.repo, revision=ref.revision, files_metadata=True, token=token, timeout=_LIST_TIMEOUT
            )
        )
        files = tuple(
            RepoFile(
                sibling.rfilename,
                sibling.size or 0,
                sibling.lfs.sha256 if sibling.lfs else None,
                None if sibling.lfs else sibling.blob_id,
            )
            for sibling in info.siblings or ()
        )
        return RepoListing(ref.repo, info.sha or "", files, bool(info.gated))


def check_access(listing: RepoListing, ref: HubReference, file: str, token: str | None = None) -> None:
    """Ask the Hub whether `file` may be read, without reading it. Raises AccessError if not.

    A gated repository lists its files for everybody, so that listing alone proves no access.
    """
    with translated(ref, token):
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(ref.repo, file, revision=listing.commit)
        asked_again(lambda: get_hf_file_metadata(url, token=token))


def remember_revision(ref: HubReference, commit: str) -> None:
    """Let the cache's name of the revision point to `commit`, as the Hub's client does after a download."""
    revision = ref.revision or DEFAULT_REVISION
    if is_commit(revision):
        return
    path = cache_folder(ref.repo) / "refs" / revision
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of its own name, since others may be downloading the same.
    staged = path.with_name(f".{path.name}.porter-{secrets.token_hex(6)}")
    try:
        staged.write_text(commit)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
