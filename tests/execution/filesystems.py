"""Small XFS and btrfs images, mounted for a test; tests skip with the reason where that cannot be done."""

import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest

# mkfs.xfs refuses anything smaller than 300 MB; the image is sparse.
SIZE = 320 << 20

MAKE = {"xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"], "btrfs": ["mkfs.btrfs", "-q"]}


@contextmanager
def mounted(kind, directory):
    """The root of a fresh file system of that kind."""
    if os.geteuid() != 0:
        pytest.skip("mounting an image needs root")
    if shutil.which(MAKE[kind][0]) is None:
        pytest.skip(f"{MAKE[kind][0]} is not installed (apt-get install xfsprogs btrfs-progs)")
    image, root = directory / f"{kind}.img", directory / kind
    with image.open("wb") as stream:
        stream.truncate(SIZE)
    subprocess.run([*MAKE[kind], image], check=True)
    root.mkdir()
    done = subprocess.run(["mount", "-o", "loop", image, root], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{kind} images cannot be mounted here: {done.stderr.strip()}")
    try:
        yield root
    finally:
        subprocess.run(["umount", root], check=True)
        image.unlink()
