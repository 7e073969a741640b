"""`python -m benchmarks WORKDIR`: makes checkpoints, runs porter, cp and LitGPT in turn, prints a table.

Promises times of whole processes until their bytes are on disk, medians over rounds, with the noise beside
them. Writes results.json and, with --chart, an SVG. Everything it makes in WORKDIR is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.chart import bars
from benchmarks.make_gemma import make
from benchmarks.measure import Series, clean, interleaved, ratio, run

PORTER = [sys.executable, "-m", "porter"]

# LitGPT's converter as its command line calls it, without the imports of the other commands.
LITGPT = (
    "from pathlib import Path; import sys;"
    "from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint as convert;"
    "convert(checkpoint_dir=Path(sys.argv[1]), model_name='gemma-2b')"
)

# Name, arguments of `porter convert`, and the goal as a multiple of cp's time.
CASES: list[tuple[str, list[str], float]] = [
    ("hf to litgpt, --tied omit", ["--to", "litgpt", "--tied", "omit"], 1.05),
    ("hf to litgpt, --tied write", ["--to", "litgpt", "--tied", "write"], 1.05),
    ("hf to lit_model.pth", ["--to", "litgpt", "--container", "pth"], 1.05),
    ("hf to litgpt, --digest always", ["--to", "litgpt", "--tied", "omit", "--digest", "always"], 1.05),
    ("hf to litgpt, --no-resume", ["--to", "litgpt", "--tied", "omit", "--no-resume"], 1.05),
    ("hf to litgpt, --dtype float32", ["--to", "litgpt", "--tied", "omit", "--dtype", "float32"], 1.2),
    ("hf to keras (transposes)", ["--to", "keras"], 1.5),
    ("keras to hf (transposes)", ["--to", "hf"], 1.5),
]

Subject = Callable[[], tuple[float, int]]


def convert(source: Path, out: Path, options: list[str]) -> tuple[float, int]:
    clean(out)
    return run([*PORTER, "convert", source, "-o", out, "--quiet", *options])


def copy(source: Path, out: Path) -> tuple[float, int]:
    """What `cp` takes for as many bytes, in as many files, with the fsync that porter ends in too."""
    clean(out)
    return run(["cp", "-r", "--reflink=never", source, out], synced=out)


def case(name: str, options: list[str], work: Path, rounds: int) -> dict[str, Series]:
    out, copied, source = work / "out", work / "copied", work / "hf"
    if name.startswith("keras"):
        source = work / "keras"
        run([*PORTER, "convert", work / "hf", "--to", "keras", "-o", source, "--quiet"])
    convert(source, out, options)
    kept = work / "kept"
    out.rename(kept)
    series = interleaved(
        {"porter": lambda: convert(source, out, options), "cp": lambda: copy(kept, copied)}, rounds
    )
    clean(out, copied, kept, work / "keras")
    return series


def litgpt(work: Path, rounds: int) -> Series:
    """LitGPT reads and writes one directory; its output is removed before each run."""
    series = Series()
    output = work / "hf" / "lit_model.pth"
    for _ in range(rounds):
        clean(output)
        seconds, rss = run([sys.executable, "-c", LITGPT, work / "hf"])
        synced, _ = run(["sync", output])
        series.add(seconds + synced, rss)
    clean(output, work / "hf" / "model_config.yaml")
    return series


def shared(work: Path, rounds: int) -> dict[str, object]:
    """The same conversions on XFS, in an image; the new disk that each takes. Needs root."""
    with xfs(work) as root:
        run(["cp", "-r", work / "hf", root / "hf"], synced=root / "hf")
        found: dict[str, object] = {}
        for name, options, _ in (CASES[1], CASES[2]):
            series, disk = Series(), 0
            for _ in range(rounds):
                clean(root / "out")
                before = os.statvfs(root)
                series.add(*convert(root / "hf", root / "out", options))
                after = os.statvfs(root)
                disk = max(disk, (before.f_bfree - after.f_bfree) * before.f_frsize)
            found[name] = {**series.to_json(), "new_disk": disk, "size": _size(root / "out")}
        return found


@contextmanager
def xfs(work: Path) -> Iterator[Path]:
    image, root = work / "xfs.img", work / "xfs"
    with image.open("wb") as stream:
        stream.truncate(16 << 30)
    root.mkdir()
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, root], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", root], check=True)
        root.rmdir()
        image.unlink()


def start_up(work: Path, rounds: int) -> dict[str, Series]:
    dry = ["convert", work / "hf", "--to", "litgpt", "--dry-run"]
    subjects: dict[str, Subject] = {
        "porter --help": lambda: run([*PORTER, "--help"]),
        "porter inspect": lambda: run([*PORTER, "inspect", work / "hf"]),
        "porter convert --dry-run": lambda: run([*PORTER, *dry]),
        "python -c pass": lambda: run([sys.executable, "-c", "pass"]),
    }
    return interleaved(subjects, rounds)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*"))


def measure(work: Path, rounds: int, *, size: str, peers: int, only: str) -> dict[str, object]:
    """Everything measured, as JSON values. Cases that cannot be run here say why."""
    results: dict[str, object] = {}
    for name, options, goal in CASES:
        if only not in name:
            continue
        print(f"{name} …", file=sys.stderr)
        try:
            series = case(name, options, work, rounds)
        except RuntimeError as error:
            results[name] = {"skipped": str(error)}
            continue
        times = {subject: found.to_json() for subject, found in series.items()}
        results[name] = {**times, "ratio": ratio(series, "porter", "cp"), "goal": goal}
        print("\n".join(table({name: results[name]})), file=sys.stderr)
    if only in "xfs":
        try:
            results["xfs"] = shared(work, rounds)
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            results["xfs"] = {"skipped": str(error)}
    if only in "start-up":
        results["start-up"] = {name: found.to_json() for name, found in start_up(work, rounds).items()}
    if only in "LitGPT" and peers and size == "2b":
        try:
            results["LitGPT"] = litgpt(work, peers).to_json()
        except RuntimeError as error:
            results["LitGPT"] = {"skipped": str(error)}
    return results


def table(results: dict[str, object]) -> Iterator[str]:
    """The results as lines of text."""
    yield f"{'work':<34} {'porter':>22} {'cp':>22} {'ratio':>6} {'goal':>5} {'RSS':>7}"
    for name, found in results.items():
        if isinstance(found, dict) and "ratio" in found:
            yield (
                f"{name:<34} {_noise(found['porter']):>22} {_noise(found['cp']):>22} {found['ratio']:>6.2f} "
                f"{found['goal']:>5} {found['porter']['peak_rss'] / 1e6:>4.0f} MB"
            )
        elif isinstance(found, dict) and "median" in found:
            yield f"{name:<34} {_noise(found):>22} {'':>35} {found['peak_rss'] / 1e6:>4.0f} MB"
        elif isinstance(found, dict):
            for inner, one in found.items():
                if not isinstance(one, dict):
                    yield f"{name}: {inner}: {one}"
                    continue
                disk = f"{one['new_disk'] / one['size']:.1%} new disk" if "new_disk" in one else ""
                yield f"{f'{name}: {inner}':<50} {_noise(one):>22} {disk} {one['peak_rss'] / 1e6:>4.0f} MB"


def _noise(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} s ({found['min']:.2f}–{found['max']:.2f})"


def draw(results: dict[str, object], path: Path) -> None:
    """The chart of the conversion that every subject can do."""
    rows: list[tuple[str, float, str]] = []
    omit, disk, peer = results.get(CASES[0][0]), results.get("xfs"), results.get("LitGPT")
    if isinstance(disk, dict) and CASES[1][0] in disk:
        rows.append(("porter, blocks shared (XFS)", disk[CASES[1][0]]["median"], "{:.1f} s"))
    if isinstance(omit, dict) and "cp" in omit:
        rows.append(("porter, ext4", omit["porter"]["median"], "{:.1f} s"))
        rows.append(("cp, ext4", omit["cp"]["median"], "{:.1f} s"))
    if isinstance(peer, dict) and "median" in peer:
        rows.append(("LitGPT's converter, ext4", peer["median"], "{:.1f} s"))
    if rows:
        labelled = [(label, value, text.format(value)) for label, value, text in rows]
        path.write_text(bars("Gemma 2B, Hugging Face to LitGPT, seconds", labelled))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("work", type=Path, help="a directory to be made, on the disk to be measured")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=int, default=2, help="runs of LitGPT's converter; 0 leaves it out")
    parser.add_argument("--size", default="2b", choices=("2b", "7b", "tiny"))
    parser.add_argument("--only", default="", help="only what has this in its name: xfs, start-up, …")
    parser.add_argument("--json", type=Path, default=Path("results.json"))
    parser.add_argument("--chart", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir()
    try:
        make(arguments.work / "hf", arguments.size)
        os.sync()
        results = measure(
            arguments.work,
            arguments.rounds,
            size=arguments.size,
            peers=arguments.peers,
            only=arguments.only,
        )
    finally:
        clean(arguments.work)
    machine = {"cpus": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()}
    arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
    if arguments.chart:
        draw(results, arguments.chart)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
