"""A store as obstore reads it, opened from the environment as the vendors' own tools are.

For S3 the region, the endpoint and who asks come from boto3's session, so that whoever reads and whoever
writes are the same. Addresses hold no secrets, and nothing that porter pickles or prints does.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from porter.sources.buckets.bucket_address import BucketAddress
from porter.sources.buckets.bucket_errors import needs_extra, translated

# A request is some megabytes: one that takes longer than this is asked for again.
_CLIENT = {"connect_timeout": "10s", "read_timeout": "30s", "timeout": "180s"}

# Of the client's own attempts; whoever reads makes some more, since a body that is cut is not among them.
_RETRIES = 4


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
        if address.scheme == "http":
            client["allow_http"] = True
        return stores.from_url(address.store_url, client_options=client, retry_config=retry)  # type: ignore[call-overload]


def s3_session() -> Any:
    """boto3's session, from the environment. Raises UnsupportedError where boto3 is not installed."""
    try:
        import boto3
    except ImportError:
        raise needs_extra("boto3", "cloud", "s3://") from None
    return boto3.Session(region_name=os.environ.get("AWS_REGION"))


def s3_endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


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
