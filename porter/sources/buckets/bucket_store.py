"""A store as obstore reads it, opened from the environment as the vendors' own tools are.

For S3 the region, the endpoint and who asks come from boto3's session, so that whoever reads and whoever
writes are the same. Addresses hold no secrets, and nothing that porter pickles or prints does.
"""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from functools import cache
from typing import Any

from porter.sources.buckets.bucket_address import BucketAddress
from porter.sources.buckets.bucket_errors import needs_extra, translated

# A request is some megabytes: one that takes longer than this is asked for again.
_CLIENT = {"connect_timeout": "10s", "read_timeout": "30s", "timeout": "180s"}

# Of the client's own attempts; whoever reads makes some more, since a body that is cut is not among them.
_RETRIES = 4

# Each says who asks, or that nobody does.
_AZURE_KEYS = (
    *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY"),
    *("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_TOKEN"),
    *("AZURE_CLIENT_ID", "AZURE_STORAGE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_MSI_ENDPOINT"),
    *("AZURE_SKIP_SIGNATURE", "AZURE_STORAGE_USE_EMULATOR", "AZURE_USE_AZURE_CLI"),
)


def open_store(address: BucketAddress) -> Any:
    """obstore's store for a bucket. Raises UnsupportedError where obstore is not installed."""
    try:
        import obstore.store as stores
    except ImportError:
        raise needs_extra("obstore", "cloud", f"reading {address.scheme}://") from None
    client: dict[str, Any] = dict(_CLIENT)
    retry: Any = {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=60)}
    with translated(address):
        if address.scheme == "s3":
            return _s3(stores, address, client, retry)
        if address.scheme == "az":
            return _azure(stores, address, client, retry)
        if address.scheme in ("http", "gs"):
            client["allow_http"] = True
        return stores.from_url(address.store_url, client_options=client, retry_config=retry)  # type: ignore[call-overload]


def _azure(stores: Any, address: BucketAddress, client: dict[str, Any], retry: Any) -> Any:
    """The account of the address, and what the environment says of who asks; if nothing, `az login`."""
    account, _, container = address.bucket.partition("/")
    options: dict[str, Any] = {"account_name": account}
    if not any(os.environ.get(name) for name in _AZURE_KEYS) and shutil.which("az") is not None:
        options["use_azure_cli"] = True
    # Microsoft's emulator, and stores in one's own network.
    named = os.environ.get("AZURE_STORAGE_ENDPOINT") or os.environ.get("AZURE_ENDPOINT") or ""
    client["allow_http"] = named.startswith("http://") or bool(os.environ.get("AZURE_STORAGE_USE_EMULATOR"))
    return stores.AzureStore(container, client_options=client, retry_config=retry, **options)


def s3_session() -> Any:
    """boto3's session, from the environment. Raises UnsupportedError where boto3 is not installed."""
    try:
        import boto3
    except ImportError:
        raise needs_extra("boto3", "cloud", "s3://") from None
    return boto3.Session(region_name=os.environ.get("AWS_REGION"))


def s3_endpoint() -> str | None:
    """The store in the place of Amazon's, as boto3 finds it: in the environment, or in the profile."""
    own = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return own or _profiles_endpoint(os.environ.get("AWS_PROFILE"), os.environ.get("AWS_CONFIG_FILE"))


@cache
def _profiles_endpoint(profile: str | None, file: str | None) -> str | None:
    try:
        from botocore.configprovider import ConfiguredEndpointProvider
        from botocore.session import Session
    except ImportError:
        raise needs_extra("boto3", "cloud", "s3://") from None
    session = Session()
    found = ConfiguredEndpointProvider(session.full_config, session.get_scoped_config(), "s3").provide()
    return None if found is None else str(found)


def _s3(stores: Any, address: BucketAddress, client: dict[str, Any], retry: Any) -> Any:
    from obstore.auth.boto3 import Boto3CredentialProvider

    session, endpoint = s3_session(), s3_endpoint()
    options: dict[str, Any] = {"region": session.region_name or "us-east-1"}
    if endpoint is not None:
        options["endpoint"] = endpoint
        client["allow_http"] = endpoint.startswith("http://")
    if session.get_credentials() is None:
        # Some buckets are everybody's.
        options["skip_signature"] = True
    else:
        options["credential_provider"] = Boto3CredentialProvider(session)
    return stores.S3Store(address.bucket, client_options=client, retry_config=retry, **options)
