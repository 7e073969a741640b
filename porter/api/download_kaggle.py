"""`porter.download` from Kaggle: a variation as a whole, into `kagglehub`'s cache, or copied out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from porter.api.downloaded import (
    CACHED,
    DOWNLOADED,
    Download,
    DownloadedFile,
    check_disk,
    copy_file,
)
from porter.errors import UsageError
from porter.sources.hub import repository as hub
from porter.sources.kaggle import kaggle_models as kaggle
from porter.sources.kaggle.kaggle_errors import offline_error
from porter.sources.kaggle.kaggle_models import KaggleReference
from porter.wording import option


def kaggle_source(source: str, source_dialect: str | None) -> KaggleReference | None:
    """What is to come from Kaggle; None for what the Hub has. Raises UsageError."""
    if source_dialect not in (None, "hf", "keras"):
        raise UsageError(
            f"models are not downloaded from {source_dialect!r}",
            hint=f"{option('from', 'hf')} (the default) or {option('from', 'keras')}",
        )
    if source_dialect == "keras":
        return kaggle.keras_preset(source)
    return kaggle.parse(source)


def download_kaggle(
    ref: KaggleReference,
    source: str,
    *,
    revision: str | None = None,
    patterns: Sequence[str] = (),
    to: Path | None = None,
    dry_run: bool = False,
    offline: bool = False,
    bars: bool = False,
) -> Download:
    """Fetch `ref`; `source` is what it was called. See `porter.api.download.download`.

    Kaggle tells no sizes before, so a dry run of what is not cached lists no files.
    """
    ref = _versioned(ref, source, revision)
    if patterns:
        raise UsageError(
            f"{ref.label} comes as a whole",
            cause=f"{option('include')} and {option('exclude')} are for the Hugging Face Hub",
        )
    asked = "newest" if ref.version is None else str(ref.version)
    found = None
    # Only Kaggle knows which version is the newest.
    if ref.version is not None or offline or dry_run or hub.is_offline():
        found = kaggle.cached(ref)
    status = CACHED
    if found is None:
        if dry_run and not (offline or hub.is_offline()):
            return Download(ref.name, asked, "", "", (), 0, 0, 0, True)
        if offline or hub.is_offline():
            raise offline_error(ref)
        from porter.sources.kaggle.kaggle_fetch import fetch

        before = kaggle.cached(ref)
        path = fetch(ref, bars=bars)
        version = int(path.name) if path.name.isdigit() else ref.version
        found = replace(ref, version=version), path
        status = CACHED if found == before else DOWNLOADED
    ref, path = found
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    sizes = {file.relative_to(path).as_posix(): file.stat().st_size for file in files}
    if to is not None and not dry_run:
        _copy(path, to, sizes)
    total = sum(sizes.values())
    return Download(
        repo=ref.name,
        revision=asked,
        commit=str(ref.version or ""),
        path=str(to or path),
        files=tuple(DownloadedFile(name, size, status, None) for name, size in sizes.items()),
        bytes_total=total,
        bytes_to_fetch=total if status == DOWNLOADED else 0,
        bytes_fetched=total if status == DOWNLOADED else 0,
        dry_run=dry_run,
    )


def _versioned(ref: KaggleReference, source: str, revision: str | None) -> KaggleReference:
    if revision is None:
        return ref
    if not revision.isascii() or not revision.isdigit() or int(revision) < 1:
        raise UsageError(f"{ref.name} has versions 1, 2, …, and no {revision!r}")
    # A short name stands for a version only until one is named.
    if source.startswith(kaggle.SCHEME) and ref.version not in (None, int(revision)):
        raise UsageError(f"two versions were given: {ref.version} and {revision}")
    return replace(ref, version=int(revision))


def _copy(path: Path, to: Path, sizes: dict[str, int]) -> None:
    absent = [name for name in sizes if not _same(path / name, to / name)]
    for name in absent:
        if (to / name).exists():
            raise UsageError(
                f"{to / name} is in the way",
                cause="it differs from the file that would take its name",
                hint="move it away, or download into another directory",
            )
    check_disk(to, sum(sizes[name] for name in absent))
    for name in absent:
        copy_file(path / name, to / name)


def _same(ours: Path, theirs: Path) -> bool:
    import filecmp

    return theirs.is_file() and filecmp.cmp(ours, theirs, shallow=False)
