"""What a folder in a bucket holds: listed, or, on plain HTTPS, asked for name by name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from porter.errors import AccessError, MalformedError, PorterError, UsageError
from porter.reading.json_text import INDEX, MAX_SHARDS, parse_json
from porter.sources.buckets.bucket_address import BucketAddress
from porter.sources.buckets.bucket_errors import persistently
from porter.sources.buckets.bucket_source import BucketSource, StoredObject, head, recorded
from porter.sources.paths import unsafe_path
from porter.sources.weight_files import container_by_suffix
from porter.untrusted import quoted
from porter.wording import flag

# A checkpoint has some hundred files at most; a whole bucket may have millions.
_MOST = 50_000

_INDEX = "model.safetensors.index.json"

# What is asked for where nothing can be listed. Only safetensors can be looked into from afar.
_PROBED = (
    *("config.json", "generation_config.json", "model_config.yaml", _INDEX),
    *("model.safetensors", "lit_model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template.jinja", "vocab.json", "merges.txt", "preprocessor_config.json"),
)

_WORKERS = 8


def open_bucket(address: BucketAddress) -> BucketSource:
    """The files in a folder of a bucket, or one weight file with the small files beside it.

    Raises PorterError where there is nothing, or no bucket; AccessError where it may not be listed.
    """
    from porter.sources.buckets.bucket_store import open_store
    from porter.sources.hub.repository import is_offline

    if is_offline():
        raise UsageError(
            f"{address.url} cannot be read offline", hint=f"leave out {flag('offline')} (HF_HUB_OFFLINE)"
        )
    store = open_store(address)
    only = None
    if container_by_suffix(address.label) is not None and address.folder:
        address, only = address.parent()
    found = _listed(store, address) if address.listable else _probed(store, address, only)
    if only is not None:
        found = {
            name: file for name, file in found.items() if name == only or container_by_suffix(name) is None
        }
    if not found or (only is not None and only not in found):
        raise PorterError(
            f"there is nothing at {address.url}{f'/{only}' if only else ''}",
            cause="the store holds no object there",
            hint="name the folder that holds the checkpoint"
            if address.listable
            else "plain HTTPS cannot be listed: name a folder with a config.json and model.safetensors in it",
        )
    return BucketSource(address, found)


def _listed(store: Any, address: BucketAddress) -> dict[str, StoredObject]:
    prefix = f"{address.folder}/" if address.folder else ""

    def listed() -> dict[str, StoredObject]:
        found: dict[str, StoredObject] = {}
        for page in store.list(prefix or None):
            for meta in page:
                name = meta["path"].removeprefix(prefix)
                # Markers of folders, and what is hidden, as in a directory.
                if meta["path"].startswith(prefix) and name and not _hidden(name):
                    found[name] = recorded(meta)
            if len(found) > _MOST:
                raise PorterError(
                    f"{address.url} holds more than {_MOST} objects",
                    cause="a checkpoint has some hundred",
                    hint="name the folder that holds the checkpoint",
                )
        return found

    return persistently(listed, address)


def _hidden(name: str) -> bool:
    return name.endswith("/") or any(part.startswith(".") for part in name.split("/"))


def _probed(store: Any, address: BucketAddress, only: str | None) -> dict[str, StoredObject]:
    names = [name for name in _PROBED if only is None or container_by_suffix(name) is None]
    found = _heads(store, address, [*names, *([only] if only else [])])
    if _INDEX in found and only is None:
        found |= _heads(store, address, _shards(BucketSource(address, found)))
    return found


def _heads(store: Any, address: BucketAddress, names: list[str]) -> dict[str, StoredObject]:
    refused: list[AccessError] = []

    def ask(name: str) -> StoredObject | None:
        try:
            return head(store, address, name)
        except AccessError as error:
            # A store that may not be listed answers so for what is not there.
            refused.append(error)
            return None

    with ThreadPoolExecutor(_WORKERS) as pool:
        found = dict(zip(names, pool.map(ask, names), strict=True))
    if refused and not any(found.values()):
        raise refused[0]
    return {name: file for name, file in found.items() if file is not None}


def _shards(source: BucketSource) -> list[str]:
    """The files that an index lists. Whether it is right otherwise is told by who reads it."""
    file = source.open(_INDEX)
    content = bytearray(min(file.size, INDEX.nbytes + 1))
    file.read([memoryview(content)], 0)
    try:
        names = sorted(set(parse_json(content, _INDEX, INDEX)["weight_map"].values()))
        wrong = next((name for name in names if unsafe_path(name)), None)
    except (KeyError, TypeError, AttributeError) as error:
        raise MalformedError(f"{_INDEX} is malformed", cause=str(error)[:200]) from error
    if wrong is not None:
        raise MalformedError(f"{_INDEX}: unsafe file name {quoted(wrong)}", cause=f"it {unsafe_path(wrong)}")
    if len(names) > MAX_SHARDS:
        raise MalformedError(
            f"{_INDEX} is malformed", cause=f"expected at most {MAX_SHARDS:,} shards, found {len(names):,}"
        )
    return names
