"""`porter.download`: a model from the Hub, each file proved by its digest, nothing fetched twice.

(What comes from Kaggle is in `download_kaggle`.)

Files go to the Hub's own cache, where every other tool finds them, or into a directory. Before the first
byte it is checked that the files may be read, that they fit on the disk, and that no file of yours would
be overwritten. Files that have arrived and been proved are kept when a later one fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from porter.api.download_kaggle import download_kaggle, kaggle_source
from porter.api.downloaded import (
    CACHED,
    DOWNLOADED,
    TO_DOWNLOAD,
    Download,
    DownloadedFile,
    check_disk,
    copy_file,
)
from porter.errors import UsageError
from porter.planning.arguments import as_list
from porter.sources.hub import repository as hub
from porter.sources.hub.hub_errors import offline_error, translated
from porter.sources.hub.hub_fetch import Place, fetch
from porter.sources.hub.listing import RepoFile, other_weights, select
from porter.sources.names import HubReference
from porter.wording import option


def download(
    source: str | HubReference,
    *,
    revision: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    out: str | Path | None = None,
    dry_run: bool = False,
    offline: bool = False,
    progress: Callable[[str, int], None] | None = None,
    token: str | None = None,
    source_dialect: str | None = None,
    bars: bool = False,
    expect: Callable[[int], None] | None = None,
    to: str | Path | None = None,
) -> Download:
    """Fetch a model by short name, `org/name[@revision]` or `hf://…` into the Hub's cache, or into `out`.

    >>> got = porter.download("gemma-2b", dry_run=True)
    >>> got.repo, got.files[0].name
    ('google/gemma-2b', 'config.json')

    `kaggle://…` comes from Kaggle, and so does a short name with `source_dialect` "keras": KerasHub's
    preset of it. Of a repository that means its Keras weights. There `bars` lets the client draw progress.

    `include` and `exclude` are shell patterns on paths; without `include` the config, the tokenizer and one
    kind of weights are fetched. `progress` is told a file's name and how many bytes of it have just arrived,
    or had been left by a run that was stopped, from any thread; `expect`, before the first, how many there
    will be. With `offline` nothing is asked of the network. `token` overrides HF_TOKEN.

    Raises AccessError where a licence or a login is needed, UsageError for what does not exist, would
    overwrite a file that is not the Hub's, or is not cached offline, DifferenceError for a wrong digest,
    PorterError for a full disk or a failing network.
    """
    include, exclude = as_list(include, "include"), as_list(exclude, "exclude")
    if to is not None:
        import warnings

        warnings.warn("porter.download(to=…) is called out=", DeprecationWarning, stacklevel=2)
        out = to
    directory = Path(out).expanduser() if out is not None else None
    if directory is not None and directory.exists() and not directory.is_dir():
        raise UsageError(
            f"{directory} is a file", hint=f"{option('out')} names the directory to download into"
        )
    if isinstance(source, str) and (there := kaggle_source(source, source_dialect)) is not None:
        return download_kaggle(
            there,
            source,
            revision=revision,
            patterns=(*include, *exclude),
            to=directory,
            dry_run=dry_run,
            offline=offline,
            bars=bars,
        )
    keras = source_dialect == "keras"
    ref = hub.reference(source, revision)
    if offline or hub.is_offline():
        return _offline(ref, include, exclude, directory, dry_run, keras)
    listing = hub.list_files(ref, token)
    place = Place(listing, directory)
    chosen = select(listing.files, include, exclude, keras=keras)
    left = other_weights(listing.files, chosen) if not include else ()
    absent = [file for file in chosen if not place.present(file)]
    _refuse_foreign(place, absent)
    missing = [file for file in absent if not place.at_hand(file)]
    if missing and listing.gated:
        hub.check_access(listing, ref, missing[0].name, token)
    if dry_run:
        return _result(ref, place, chosen, missing, left, dry_run=True)
    wanted = missing if directory is None else absent
    check_disk(place.root, sum(file.size - place.begun(file) for file in wanted))
    if expect is not None:
        expect(sum(file.size for file in wanted))
    unproved = [file for file in chosen if file in absent or place.mark(file).is_file()]
    # One after the other: a large file takes several connections by itself.
    for file in unproved:
        fetch(place, file, ref, token=token, tick=progress)
    if directory is None:
        with translated(ref, token):
            hub.remember_revision(ref, listing.commit)
    return _result(ref, place, chosen, missing, left, dry_run=False)


def _offline(
    ref: HubReference,
    include: Sequence[str],
    exclude: Sequence[str],
    to: Path | None,
    dry_run: bool,
    keras: bool,
) -> Download:
    # Patterns say themselves what is wanted, which may be less than a complete checkpoint.
    snapshot = hub.cached_directory(ref) if include else hub.cached_snapshot(ref)
    if snapshot is None:
        raise offline_error(ref)
    listing = hub.cached_listing(ref, snapshot)
    place = Place(listing, to)
    chosen = select(listing.files, include, exclude, keras=keras)
    if to is not None:
        absent = [file for file in chosen if not place.present(file)]
        _refuse_foreign(place, absent)
        if not dry_run:
            check_disk(to, sum(file.size for file in absent))
            with translated(ref):
                for file in absent:
                    copy_file(snapshot / file.name, place.path(file))
    return _result(ref, place, chosen, [], (), dry_run=dry_run)


def _refuse_foreign(place: Place, absent: Sequence[RepoFile]) -> None:
    for file in absent:
        if place.foreign(file):
            raise UsageError(
                f"{place.path(file)} is in the way",
                cause=f"it did not come from the Hub, and differs from {place.listing.repo}'s {file.name}",
                hint="move it away, or download into another directory",
            )


def _result(
    ref: HubReference,
    place: Place,
    chosen: Sequence[RepoFile],
    missing: Sequence[RepoFile],
    left: tuple[str, ...],
    *,
    dry_run: bool,
) -> Download:
    fresh = TO_DOWNLOAD if dry_run else DOWNLOADED
    to_fetch = sum(file.size for file in missing)
    return Download(
        repo=ref.repo,
        revision=ref.revision or hub.DEFAULT_REVISION,
        commit=place.listing.commit,
        path=str(place.root),
        files=tuple(
            DownloadedFile(file.name, file.size, fresh if file in missing else CACHED, file.sha256)
            for file in chosen
        ),
        bytes_total=sum(file.size for file in chosen),
        bytes_to_fetch=to_fetch,
        bytes_fetched=0 if dry_run else to_fetch,
        dry_run=dry_run,
        left=left,
    )
