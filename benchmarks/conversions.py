"""Conversions of a Gemma of full shape, in turn with `cp` of as many bytes and with LitGPT's converter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Series, Subject, clean, interleaved, ratio, run

PORTER = [sys.executable, "-m", "porter"]

# LitGPT's converter as its command line calls it, without the imports of the other commands.
_LITGPT = (
    "from pathlib import Path; import sys;"
    "from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint as convert;"
    "convert(checkpoint_dir=Path(sys.argv[1]), model_name='gemma-2b')"
)


@dataclass(frozen=True)
class Case:
    """What is measured, the options of `porter convert`, and the goal as a multiple of cp's time."""

    name: str
    options: tuple[str, ...]
    goal: float
    peer: bool = False


CASES = (
    Case("hf to litgpt, --tied omit", ("--to", "litgpt", "--tied", "omit"), 1.05),
    Case("hf to litgpt, --tied write", ("--to", "litgpt", "--tied", "write"), 1.05, peer=True),
    Case("hf to lit_model.pth", ("--to", "litgpt", "--container", "pth"), 1.05),
    Case("hf to litgpt, --digest always", ("--to", "litgpt", "--tied", "omit", "--digest", "always"), 1.05),
    Case("hf to litgpt, --no-resume", ("--to", "litgpt", "--tied", "omit", "--no-resume"), 1.05),
    Case("hf to litgpt, --dtype float32", ("--to", "litgpt", "--tied", "omit", "--dtype", "float32"), 1.2),
    Case("hf to keras (transposes)", ("--to", "keras"), 1.5),
    Case("keras to hf (transposes)", ("--to", "hf"), 1.5),
)


def measured(case: Case, work: Path, rounds: int, *, peers: bool) -> dict[str, object]:
    """One case as JSON values. Raises RuntimeError where it cannot be run here."""
    out, copied, kept, source = work / "out", work / "copied", work / "kept", work / "hf"
    if case.name.startswith("keras"):
        source = work / "keras"
        run([*PORTER, "convert", work / "hf", "--to", "keras", "-o", source, "--quiet"])
    command = [*PORTER, "convert", source, "-o", out, "--quiet", *case.options]
    run(command)
    out.rename(kept)
    lit_model = work / "hf" / "lit_model.pth"
    subjects: dict[str, Subject] = {
        "porter": lambda: run(command),
        # As many bytes, in as many files, with the fsync that porter ends in too.
        "cp": lambda: run(["cp", "-r", "--reflink=never", kept, copied], synced=copied),
    }
    if case.peer and peers and importlib.util.find_spec("litgpt"):
        subjects["LitGPT"] = lambda: run([sys.executable, "-c", _LITGPT, work / "hf"], synced=lit_model)
    try:
        series = interleaved(subjects, rounds, lambda: clean(out, copied, lit_model))
    finally:
        clean(out, copied, kept, work / "keras", lit_model, work / "hf" / "model_config.yaml")
    return against(series, "cp", case.goal)


def against(series: Mapping[str, Series], peer: str, goal: float) -> dict[str, object]:
    """Series as JSON values, with porter's time in units of each other subject's."""
    ratios = {name: ratio(series, "porter", name) for name in series if name != "porter"}
    times = {name: found.to_json() for name, found in series.items()}
    return {"subjects": times, "ratios": ratios, "peer": peer, "goal": goal}


def shared(work: Path, rounds: int) -> Iterator[tuple[str, dict[str, object]]]:
    """Conversions on XFS, in an image, with the new disk that each takes. Needs root."""
    with _xfs(work) as root:
        run(["cp", "-r", work / "hf", root / "hf"], synced=root / "hf")
        out = root / "out"
        for case in CASES[1:3]:
            series, disk = Series(), 0
            for _ in range(rounds):
                clean(out)
                before = os.statvfs(root)
                series.add(*run([*PORTER, "convert", root / "hf", "-o", out, "--quiet", *case.options]))
                after = os.statvfs(root)
                disk = max(disk, (before.f_bfree - after.f_bfree) * before.f_frsize)
            size = sum(file.stat().st_size for file in out.rglob("*"))
            told = {"subjects": {"porter": series.to_json()}, "new_disk": disk, "size": size}
            yield f"XFS: {case.name}", told


@contextmanager
def _xfs(work: Path) -> Iterator[Path]:
    image, root = work / "xfs.img", work / "xfs"
    with image.open("wb") as stream:
        stream.truncate(16 << 30)
    root.mkdir()
    try:
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, root], check=True)
        try:
            yield root
        finally:
            subprocess.run(["umount", root], check=True)
    finally:
        root.rmdir()
        image.unlink()
