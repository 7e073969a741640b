"""Addresses in buckets: `s3://bucket/folder`, `gs://…`, `az://account/container/folder`, `https://host/folder`.

Reading an address touches no network and imports no client.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from porter.errors import UsageError
from porter.sources.paths import unsafe_path

# `http` is for stores in one's own network and on the loopback.
SCHEMES = ("s3", "gs", "az", "https", "http")

# What is said of each in an error.
_FORMS = {
    "s3": "s3://bucket/folder",
    "gs": "gs://bucket/folder",
    "az": "az://account/container/folder",
    "https": "https://host/folder",
    "http": "http://host/folder",
}


@dataclass(frozen=True)
class BucketAddress:
    """A folder in a bucket. `bucket` is a bucket's name, for Azure account and container, for HTTPS the host.

    `folder` has no slash at either end, and is empty for the bucket itself.
    """

    scheme: str
    bucket: str
    folder: str

    @property
    def store_url(self) -> str:
        return f"{self.scheme}://{self.bucket}"

    @property
    def url(self) -> str:
        return f"{self.store_url}/{self.folder}" if self.folder else self.store_url

    @property
    def label(self) -> str:
        """What a person would call the model."""
        return (self.folder or self.bucket).rpartition("/")[2]

    @property
    def listable(self) -> bool:
        return self.scheme not in ("https", "http")

    def key(self, name: str) -> str:
        """The key of a file in the folder."""
        return f"{self.folder}/{name}" if self.folder else name

    def parent(self) -> tuple[BucketAddress, str]:
        """The folder around it, and its own name in that."""
        folder, _, name = self.folder.rpartition("/")
        return replace(self, folder=folder), name


def parse_address(text: str) -> BucketAddress | None:
    """None for what is no address of a bucket. Raises UsageError for one that names none."""
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in SCHEMES:
        return None
    rest = rest.rstrip("/")
    parts = 2 if scheme == "az" else 1
    names = rest.split("/")
    bucket, folder = "/".join(names[:parts]), "/".join(names[parts:])
    wrong = unsafe_path(rest) if rest else "names no bucket"
    if len(names) < parts:
        wrong = "names no container"
    if scheme in ("https", "http") and ("?" in rest or "#" in rest or "@" in bucket):
        wrong = "has a query or a user's name, which porter does not pass on"
    if wrong:
        # What stands before an @ may be a password.
        shown = f"{scheme}://…{rest[rest.index('@') :]}" if "@" in rest else text
        raise UsageError(
            f"{shown!r} is no address of a bucket", cause=f"it {wrong}", hint=f"for example {_FORMS[scheme]}"
        )
    return BucketAddress(scheme, bucket, folder)
