"""`porter convert MODEL` with nothing in the cache: what arrives goes straight into its place.

The loopback hub serves real bytes by ranges and counts them; porter runs as a user runs it, in a process of
its own. What it writes must be what the same conversion makes of a local directory, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import porter

REPO = "google/gemma-2b"
LAYERS = 3


def tensors(seed: int = 0, *, big: bool = False) -> dict[str, np.ndarray]:
    """A Gemma 1 in bfloat16-sized integers: names and shapes are all that porter looks at."""
    draw = np.random.default_rng(seed)
    vocab, dim, hidden, heads, size = (60_000 if big else 211), 66, 101, 6, 10
    shapes = {"model.embed_tokens.weight": (vocab, dim), "model.norm.weight": (dim,)}
    for layer in range(LAYERS):
        own = {
            "input_layernorm": (dim,),
            "post_attention_layernorm": (dim,),
            "self_attn.q_proj": (heads * size, dim),
            "self_attn.k_proj": (2 * size, dim),
            "self_attn.v_proj": (2 * size, dim),
            "self_attn.o_proj": (dim, heads * size),
            "mlp.gate_proj": (hidden, dim),
            "mlp.up_proj": (hidden, dim),
            "mlp.down_proj": (dim, hidden),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in own.items()}
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def checkpoint(folder: Path, weights: dict[str, np.ndarray], **changes: object) -> Path:
    folder.mkdir()
    names = sorted(weights)
    half = len(names) // 2
    shards = {
        "model-00001-of-00002.safetensors": names[:half],
        "model-00002-of-00002.safetensors": names[half:],
    }
    for file, held in shards.items():
        save_file({name: weights[name] for name in held}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "model_type": "gemma",
        "num_hidden_layers": LAYERS,
        "hidden_size": 66,
        "intermediate_size": 101,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "vocab_size": weights["model.embed_tokens.weight"].shape[0],
        "hidden_act": "gelu",
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text('{"bos_token_id": 2, "eos_token_id": 1}')
    return folder


def serve(hub, folder: Path) -> None:
    hub.server.add(REPO, {path.name: path.read_bytes() for path in sorted(folder.iterdir())})


def run(hub, *words: object, **env: str) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        [sys.executable, "-m", "porter", *map(str, words)],
        env={**hub.env, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran


def weights_digest(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.suffix in (".safetensors", ".pth")
    }


@pytest.fixture
def source(hub, tmp_path: Path) -> Path:
    folder = checkpoint(tmp_path / "source", tensors())
    serve(hub, folder)
    return folder


@pytest.mark.parametrize(
    "options",
    [
        ("--to", "litgpt"),
        ("--to", "litgpt", "--tied", "omit"),
        ("--to", "litgpt", "--container", "pth"),
        ("--to", "litgpt", "--dtype", "bfloat16"),
        ("--to", "hf", "--max-shard-size", "100KB"),
        ("--to", "litgpt-legacy"),
    ],
    ids=lambda options: " ".join(options[1:]),
)
def test_the_output_is_that_of_a_local_conversion(
    hub, source: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    ran = run(hub, "convert", "gemma-2b", *options, "-o", tmp_path / "far")
    assert ran.returncode == 0, ran.stderr
    near = run(hub, "convert", source, *options, "-o", tmp_path / "near")
    assert near.returncode == 0, near.stderr
    one, two = weights_digest(tmp_path / "far"), weights_digest(tmp_path / "near")
    assert one == two
    assert sorted(p.name for p in (tmp_path / "far").iterdir()) == sorted(
        p.name for p in (tmp_path / "near").iterdir()
    )


def test_nothing_but_the_output_is_stored_and_the_digest_is_verified(
    hub, source: Path, tmp_path: Path
) -> None:
    ran = run(hub, "convert", "gemma-2b", "--to", "litgpt", "-o", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    cached = [path for path in hub.home.rglob("*") if path.is_file() and path.stat().st_size > 50_000]
    assert cached == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    receipt = json.loads((tmp_path / "out" / "porter-receipt.json").read_text())
    for name, entry in receipt["source"]["files"].items():
        assert entry["sha256"] == "sha256:" + hashlib.sha256((source / name).read_bytes()).hexdigest()


def test_each_byte_is_fetched_about_once(hub, source: Path, tmp_path: Path) -> None:
    hub.server.forget()
    assert run(hub, "convert", "gemma-2b", "--to", "litgpt", "-o", tmp_path / "out").returncode == 0
    stored = sum(path.stat().st_size for path in source.iterdir())
    # The headers come twice: once for the plan, once for the digest.
    assert stored <= hub.server.file_bytes <= stored + 100_000


_SMALL_CHUNKS = """
from porter.execution import streaming
streaming.CHUNK = 1 << 13
import porter
"""


def test_the_hub_is_asked_once_for_each_file(hub, source: Path, tmp_path: Path) -> None:
    """Every range would cost a request to the Hub, which limits them; its redirect is remembered."""
    hub.server.forget()
    code = _SMALL_CHUNKS + "porter.convert('gemma-2b', sys.argv[1], to='litgpt')\nemit({})"
    hub.python(code, str(tmp_path / "out"))
    weights = [r for r in hub.server.log if ".safetensors" in r.path and "index" not in r.path]
    asked = [r for r in weights if r.server == "hub"]
    assert len([r for r in weights if r.server == "storage"]) > 20
    # Headers, and then the first chunks, several of which are under way before the first redirect has come.
    assert len(asked) <= 2 * (1 + 8)


def test_what_the_hub_has_signed_may_expire_on_the_way(hub, source: Path, tmp_path: Path) -> None:
    code = (
        _SMALL_CHUNKS
        + """
from porter.sources.hub.hub_ranges import RangeReader
plain, calls = RangeReader._read, []
def expiring(self, file, start, view, known, *more):
    calls.append(known)
    if known is not None and len(calls) % 7 == 0:
        known = known.replace("signature=", "signature=old-")
    return plain(self, file, start, view, known, *more)
RangeReader._read = expiring
porter.convert("gemma-2b", sys.argv[1], to="litgpt")
emit({"calls": len(calls)})
"""
    )
    assert hub.python(code, str(tmp_path / "out"))["calls"] > 20
    assert [r for r in hub.server.log if r.status == 403], "it did expire"
    porter.convert(source, tmp_path / "near", to="litgpt")
    assert weights_digest(tmp_path / "out") == weights_digest(tmp_path / "near")


def test_one_memory_budget_holds_from_afar_too(hub, source: Path, tmp_path: Path) -> None:
    code = """
import threading
import porter
from porter.execution.run_options import RunOptions
from porter.sources.hub.hub_source import HubFile
sizes, under_way, most, lock = [], [0], [0], threading.Lock()
plain = HubFile.read
def counted(self, views, offset):
    size = sum(map(len, views))
    with lock:
        sizes.append(size); under_way[0] += size; most[0] = max(most[0], under_way[0])
    plain(self, views, offset)
    with lock:
        under_way[0] -= size
HubFile.read = counted
porter.convert("gemma-2b", sys.argv[1], to="litgpt", run_options=RunOptions(max_memory=8 << 20))
emit({"largest": max(sizes), "most": most[0]})
"""
    found = hub.python(code, str(tmp_path / "out"))
    assert found["largest"] <= 2 << 20
    assert found["most"] <= 4 << 20


@pytest.mark.parametrize(("word", "known"), [("always", True), ("never", False)])
def test_the_output_is_hashed_where_that_is_asked_for(
    hub, source: Path, tmp_path: Path, word: str, known: bool
) -> None:
    ran = run(hub, "convert", "gemma-2b", "--to", "litgpt", "--digest", word, "-o", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    told = json.loads((tmp_path / "out" / "porter-receipt.json").read_text())["files"][
        "lit_model.safetensors"
    ]
    digest = "sha256:" + hashlib.sha256((tmp_path / "out" / "lit_model.safetensors").read_bytes()).hexdigest()
    assert (digest in json.dumps(told)) == known


def test_wrong_bytes_are_noticed_and_nothing_is_written(hub, source: Path, tmp_path: Path) -> None:
    """Negative control of the digest: one flipped byte in a weight, which no header shows."""
    ran = hub.python(
        """
from pathlib import Path
from porter.sources.hub import hub_source
plain = hub_source.HubFile.read
def flipped(self, views, offset):
    plain(self, views, offset)
    if self.name.startswith("model-00002") and len(views[0]) > 2000:
        views[0][-7] ^= 1
hub_source.HubFile.read = flipped
import porter
try:
    porter.convert("gemma-2b", sys.argv[1], to="litgpt")
    emit({"exit": 0})
except PorterError as error:
    emit({"exit": error.exit_code, "text": str(error)})
""",
        str(tmp_path / "out"),
    )
    assert ran["exit"] == 3
    assert "model-00002-of-00002.safetensors" in ran["text"]
    assert not (tmp_path / "out").exists()
    assert leftovers(tmp_path) == []


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_stale_tied_head_is_noticed_on_the_way(hub, tmp_path: Path) -> None:
    weights = tensors()
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + 1
    serve(hub, checkpoint(tmp_path / "source", weights))
    ran = run(hub, "convert", "gemma-2b", "--to", "litgpt", "-o", tmp_path / "out")
    assert ran.returncode == 3
    assert "lm_head.weight" in ran.stderr
    assert not (tmp_path / "out").exists()


def killed_in_the_middle(hub, folder: Path, out: Path, dtype: str) -> tuple[list[str], int]:
    """SIGKILL of a conversion from the Hub; what goes on with it, and how many pieces were noted as done."""
    serve(hub, folder)
    script = (
        "import sys\n"
        "from porter.execution import journal, streaming, units\n"
        "from porter.sources.hub import hub_source\n"
        "streaming.CHUNK, streaming.AHEAD, units.RANGE, journal.INTERVAL = 1 << 18, 2, 1 << 18, 0.02\n"
        "import time\n"
        "if sys.argv[2] == 'slow':\n"
        "    plain = hub_source.HubFile.read\n"
        "    hub_source.HubFile.read = lambda *a: (time.sleep(0.05), plain(*a))[1]\n"
        "import porter\n"
        "porter.convert('gemma-2b', sys.argv[1], to='litgpt', dtype=sys.argv[3])\n"
    )
    first = subprocess.Popen([sys.executable, "-c", script, str(out), "slow", dtype], env=dict(hub.env))
    deadline = time.monotonic() + 60
    journal = None
    while time.monotonic() < deadline and (journal is None or len(journal.read_text().splitlines()) < 18):
        time.sleep(0.02)
        journal = next((path for path in out.parent.glob(".out.porter-*/*journal*")), None)
        assert first.poll() is None, "it ended before it could be killed"
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not out.exists()
    lines = [json.loads(line.partition(" ")[2]) for line in journal.read_text().splitlines()[1:]]
    # What is tied comes once and stands twice.
    return [sys.executable, "-c", script, str(out), "fast", dtype], sum(
        line["end"] - line["start"] for line in lines
    ) >> 19


@pytest.mark.parametrize("dtype", ["keep", "float32"])
def test_a_killed_run_goes_on(hub, tmp_path: Path, dtype: str) -> None:
    """SIGKILL in the middle; the same command then fetches only what is missing, and gets the same bytes.

    With another dtype the tensors wait until they are whole, and what waits is gone on with too.
    """
    folder, out = checkpoint(tmp_path / "source", tensors(big=True)), tmp_path / "out"
    command, noted = killed_in_the_middle(hub, folder, out, dtype)
    assert noted >= 8
    hub.server.forget()
    again = subprocess.run(command, env=dict(hub.env), timeout=120)
    assert again.returncode == 0
    stored = sum(path.stat().st_size for path in folder.iterdir())
    assert hub.server.file_bytes < stored - (noted - 4) * (1 << 18) + 100_000
    assert porter.convert(folder, tmp_path / "near", to="litgpt", dtype=dtype).out.is_dir()
    assert weights_digest(out) == weights_digest(tmp_path / "near")


def test_what_changed_of_a_killed_run_is_fetched_again_wherever_it_stands(hub, tmp_path: Path) -> None:
    """A bit in each 50,000 bytes of what is staged: of both places of what is tied, and of the padding."""
    folder, out = checkpoint(tmp_path / "source", tensors(big=True)), tmp_path / "out"
    command, noted = killed_in_the_middle(hub, folder, out, "keep")
    staged = next(tmp_path.glob(".out.porter-*/lit_model.safetensors"))
    damaged = bytearray(staged.read_bytes())
    before = bytes(damaged)
    for at in range(7, len(damaged), 50_000):
        damaged[at] ^= 4
    # What lies between the header's end and its place, too: the length of the header counts blanks.
    length = int.from_bytes(before[:8], "little")
    if before[8 : 8 + length].endswith(b" "):
        damaged[8 + length - 1] = ord("\t")
    staged.write_bytes(damaged)
    assert subprocess.run(command, env=dict(hub.env), timeout=120).returncode == 0
    assert porter.convert(folder, tmp_path / "near", to="litgpt").out.is_dir()
    assert weights_digest(out) == weights_digest(tmp_path / "near")
    assert noted >= 8


# The network breaks after as many requests as the second argument says.
_BREAKING = """
from porter.execution import streaming, units
from porter.sources.hub import hub_source
streaming.CHUNK, streaming.AHEAD, units.RANGE = 1 << 18, 2, 1 << 18
plain, calls = hub_source.HubFile.read, []
def breaking(self, *arguments):
    calls.append(arguments)
    if len(calls) > int(sys.argv[2]):
        raise PorterError("the network broke")
    return plain(self, *arguments)
hub_source.HubFile.read = breaking
"""


def test_after_a_network_that_broke_the_same_command_goes_on(hub, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "source", tensors(big=True))
    serve(hub, folder)
    code = (
        _BREAKING
        + """
import porter
try:
    porter.convert("gemma-2b", sys.argv[1], to="litgpt")
    emit({"exit": 0, "calls": len(calls)})
except PorterError as error:
    emit({"exit": error.exit_code, "hint": error.hint, "calls": len(calls)})
"""
    )
    out = tmp_path / "out"
    first = hub.python(code, str(out), "20")
    assert (first["exit"], first["hint"]) == (1, "run it again to go on")
    assert not out.exists()
    assert len(leftovers(tmp_path)) == 1
    second = hub.python(code, str(out), "100000")
    assert second["exit"] == 0
    whole = hub.python(code, str(tmp_path / "whole"), "100000")
    assert second["calls"] < whole["calls"] - 10
    assert weights_digest(out) == weights_digest(tmp_path / "whole")
    assert leftovers(tmp_path) == []


_NOTICED = """
from porter.api.convert import prepare, run
from porter.execution.watch import Watch
notices = []
try:
    run(prepare("gemma-2b", to="litgpt"), sys.argv[1], watch=Watch(notice=notices.append))
    emit({"exit": 0, "notices": notices})
except PorterError as error:
    emit({"exit": error.exit_code})
"""


@pytest.mark.parametrize("damaged", [True, False])
def test_where_no_digest_can_tell_each_chunk_has_a_checksum(hub, tmp_path: Path, damaged: bool) -> None:
    """A file that is wanted in part only: what an earlier run has written is believed by its checksum."""
    folder = checkpoint(tmp_path / "source", tensors(big=True))
    serve(hub, folder)
    code = _BREAKING + "streaming.WHOLE = 2.0\n" + _NOTICED
    out = tmp_path / "out"
    assert hub.python(code, str(out), "20")["exit"] == 1
    (stage,) = (path for path in tmp_path.iterdir() if path.name.startswith(".out"))
    written = stage / "lit_model.safetensors"
    content = bytearray(written.read_bytes())
    if damaged:
        # Something in the middle of what has come; a hole has nothing to damage.
        at = next(at for at in range(1 << 20, len(content)) if content[at])
        content[at] ^= 1
        written.write_bytes(content)
    second = hub.python(code, str(out), "100000")
    assert second["exit"] == 0
    assert any("does not hold what was noted" in text for text in second["notices"]) == damaged
    porter.convert(folder, tmp_path / "near", to="litgpt")
    assert weights_digest(out) == weights_digest(tmp_path / "near")


def test_another_commit_of_the_source_starts_anew_and_says_so(hub, tmp_path: Path) -> None:
    """Same shapes, so the same plan; other bytes, so nothing of an earlier run may be believed."""
    serve(hub, checkpoint(tmp_path / "source", tensors(big=True)))
    code = _BREAKING + _NOTICED
    out = tmp_path / "out"
    assert hub.python(code, str(out), "20")["exit"] == 1
    changed = {name: tensor + 1 for name, tensor in tensors(big=True).items()}
    newer = checkpoint(tmp_path / "newer", changed)
    serve(hub, newer)
    second = hub.python(code, str(out), "100000")
    assert second["exit"] == 0
    assert [text for text in second["notices"] if "started anew" in text]
    porter.convert(newer, tmp_path / "near", to="litgpt")
    assert weights_digest(out) == weights_digest(tmp_path / "near")


def test_offline_the_error_names_the_download(hub, source: Path, tmp_path: Path) -> None:
    ran = run(hub, "convert", "gemma-2b", "--to", "litgpt", "-o", tmp_path / "out", "--offline")
    assert ran.returncode == 2
    assert "porter download gemma-2b" in ran.stderr
