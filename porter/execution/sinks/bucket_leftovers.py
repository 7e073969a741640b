"""What killed runs have left in a bucket: claims, uploads without an end, outputs half published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from porter.execution.leftovers import RECEIPT
from porter.execution.sinks import multipart
from porter.execution.sinks.claim import PREFIX, SUFFIX, Claim, Claimed, read_claim
from porter.execution.sinks.multipart import Upload
from porter.sources.buckets.bucket_address import BucketAddress


@dataclass(frozen=True)
class BucketLeftover:
    """What is left of a run that wrote `out`. Uploads without a claim may be another program's."""

    out: BucketAddress
    claim: Claimed | None
    uploads: tuple[Upload, ...]

    @property
    def in_use(self) -> bool:
        return self.claim is not None and self.claim.in_use

    @property
    def nbytes(self) -> int:
        """Bytes that the store keeps, and that are paid for, until the uploads are ended."""
        return sum(size for upload in self.uploads for _, size in multipart.sent(upload).values())


def settle_bucket(out: BucketAddress, claim: Claimed) -> list[str]:
    """Removes what a run that was killed in its commit has made readable; the names of what was removed.

    Where a receipt is there, the output is whole: the new one, whose receipt came last, or the old one, whose
    receipt would have gone first. What is removed is the run's own, or what it was replacing.
    """
    if claim.content.get("state") != "publishing":
        return []
    there = multipart.keys(out)
    if RECEIPT in there:
        return []
    own = {*claim.uploads(out), *claim.content.get("replaced", ())}
    removed = [name for name in there if name in own]
    for name in removed:
        multipart.remove(out, name)
    return removed


def end_leftover(left: BucketLeftover) -> None:
    """Ends the uploads of a run that is over, and removes its claim. Raises UsageError where a run goes on
    with them by now.
    """
    assert left.claim is not None, "without a claim it is not known whose they are"
    claim = Claim(left.out, {})
    claim.take(left.claim)
    try:
        settle_bucket(left.out, left.claim)
        for upload in left.uploads:
            multipart.give_up(upload)
        claim.release()
    finally:
        claim.end()


def find_bucket_leftovers(folder: BucketAddress) -> Iterator[BucketLeftover]:
    """What lies in a folder of a bucket, and in the folders below it."""
    uploads = [upload for upload, _ in multipart.unfinished(folder, folder.key(""))]
    # An output may lie within another's folder: what is in both is of the inner one, which comes first.
    for out in sorted(_claimed_outputs(folder), key=lambda out: out.folder.count("/"), reverse=True):
        own = tuple(upload for upload in uploads if upload.name.startswith(f"{out.folder}/"))
        uploads = [upload for upload in uploads if upload not in own]
        claim = read_claim(out)
        if claim is not None:
            yield BucketLeftover(out, claim, own)
    for upload in uploads:
        yield BucketLeftover(replace(folder, folder=upload.name), None, (upload,))


def uploads_of(out: BucketAddress) -> list[Upload]:
    """The unfinished uploads of whoever has claimed an output: all into its folder, noted in the claim or
    begun after it was last renewed, but for those that another claim within the folder covers.
    """
    inner = [f"{within.folder}/" for within in _claimed_outputs(out)]
    found = [upload for upload, _ in multipart.unfinished(out, f"{out.folder}/")]
    return [upload for upload in found if not upload.name.startswith(tuple(inner))]


def _claimed_outputs(folder: BucketAddress) -> list[BucketAddress]:
    """The outputs in a folder, and in the folders below it, beside which a claim lies."""
    found = []
    for name in multipart.keys(folder):
        place, _, last = name.rpartition("/")
        if last.startswith(PREFIX) and last.endswith(SUFFIX):
            parent = folder.key(place).rstrip("/")
            found.append(replace(folder, folder=f"{parent}/{last[1 : -len(SUFFIX)]}".lstrip("/")))
    return found
