"""`porter convert` from a Hub on the loopback, in turn with plain downloads of the same bytes to disk.

A download is `curl` with ranges: one connection, or eight that each fetch an eighth of a file; and the Hub's
own client. All end in fsync. That nothing but the output was stored is checked, not measured.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.conversions import PORTER, against
from benchmarks.hub import REPO
from benchmarks.measure import Subject, clean, interleaved, run

CONNECTIONS = 8

_HUB_CLIENT = (
    "import sys; from huggingface_hub import hf_hub_download;"
    f"[hf_hub_download({REPO!r}, name, local_dir=sys.argv[1]) for name in sys.argv[2:]]"
)


def measured(work: Path, rounds: int, *, peers: bool) -> dict[str, object]:
    """porter's time against `curl`'s; the goal is 0.8 of its rate. Raises RuntimeError without `curl`."""
    if shutil.which("curl") is None:
        raise RuntimeError("curl is not installed")
    source, out, loaded, home = work / "hf", work / "out", work / "loaded", work / "hf-home"
    sizes = {path.name: path.stat().st_size for path in sorted(source.glob("*.safetensors"))}
    with _hub(source, home) as env:
        files = {name: f"{env['HF_ENDPOINT']}/{REPO}/resolve/main/{name}" for name in sizes}

        def convert() -> tuple[float, int]:
            command = [*PORTER, "convert", REPO, "--to", "litgpt", "--tied", "omit", "-o", out, "--quiet"]
            found = run(command, env=env)
            stored = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
            assert stored < 10_000_000, f"{stored} bytes were stored beside the output"
            return found

        def single() -> tuple[float, int]:
            parts = [f"curl -sfL -r 0- -o {loaded / name} {url}" for name, url in files.items()]
            return run(["sh", "-c", f"mkdir {loaded} && {' && '.join(parts)}"], synced=loaded)

        def several() -> tuple[float, int]:
            script = _parallel(loaded, files, sizes)
            return run(["sh", "-c", script], synced=loaded)

        subjects: dict[str, Subject] = {"porter": convert, "curl": single, "curl, 8 ranges": several}
        if peers:
            client = [sys.executable, "-c", _HUB_CLIENT, loaded, *files]
            subjects["hf_hub_download"] = lambda: run(client, synced=loaded, env=env)
        series = interleaved(subjects, rounds, lambda: clean(out, loaded, home))
    clean(out, loaded, home)
    return against(series, "curl", 1 / 0.8)


def _parallel(loaded: Path, files: Mapping[str, str], sizes: Mapping[str, int]) -> str:
    lines = [f"set -e; mkdir {loaded}"]
    for name, url in files.items():
        step = -(-sizes[name] // CONNECTIONS)
        for start in range(0, sizes[name], step):
            stop = min(start + step, sizes[name])
            place = f"of={loaded / name} bs=1M seek={start} oflag=seek_bytes iflag=fullblock conv=notrunc"
            lines.append(f"curl -sfL -r {start}-{stop - 1} {url} | dd status=none {place} &")
        lines.append("wait")
    return "\n".join(lines)


@contextmanager
def _hub(source: Path, home: Path) -> Iterator[dict[str, str]]:
    command = [sys.executable, "-m", "benchmarks.hub", str(source)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdin is not None
        try:
            address = server.stdout.readline().strip()
            quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
            yield {"HF_ENDPOINT": address, "HF_HOME": str(home), **quiet}
        finally:
            server.stdin.close()
