"""The model of docs/scale.md against runs: one Ray worker on this machine, from disk to disk.

    python -m benchmarks.cluster [FOLDER]

A conversion of next to nothing gives the seconds that a task takes, a large one the bytes a second. Others
are then predicted, and run. The best of some runs counts: what else a machine does only ever adds.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import porter
from porter.api.convert import prepare
from porter.execution.cluster.cluster_driver import ClusterDriver
from porter.execution.cluster.divide import Division
from porter.execution.cluster.predict import Assumed, predict
from porter.execution.cluster.ray_pool import RayPool
from porter.execution.publish import publish_plan

MIB = 1 << 20
PARTS = Division(32 * MIB, 16 * MIB, 256 * MIB)
# Every unit a task.
EACH = Division(1, 16 * MIB, 256 * MIB)
RUNS = 3


def checkpoint(folder: Path, layers: int, vocab: int, dim: int, hidden: int) -> Path:
    draw = np.random.default_rng(0)
    block = draw.integers(0, 1 << 16, 1 << 20, np.uint16).view(np.float16)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab, dim),
        "model.norm.weight": (dim,),
    }
    for layer in range(layers):
        own = {
            "input_layernorm": (dim,),
            "post_attention_layernorm": (dim,),
            "self_attn.q_proj": (dim, dim),
            "self_attn.k_proj": (256, dim),
            "self_attn.v_proj": (256, dim),
            "self_attn.o_proj": (dim, dim),
            "mlp.gate_proj": (hidden, dim),
            "mlp.up_proj": (hidden, dim),
            "mlp.down_proj": (dim, hidden),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in own.items()}
    folder.mkdir(parents=True)
    weights = {name: np.resize(block, shape) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "model_type": "gemma",
        "num_hidden_layers": layers,
        "hidden_size": dim,
        "intermediate_size": hidden,
        "num_attention_heads": dim // 256,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "vocab_size": vocab,
        "hidden_act": "gelu",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def seconds(source: Path, out: Path, pool: RayPool, division: Division, **options: str) -> float:
    """Of the tasks alone, the best of some runs."""
    prepared = prepare(source, **options)
    best = float("inf")
    for _ in range(RUNS):
        shutil.rmtree(out, ignore_errors=True)
        times: list[float] = []

        class Timed(ClusterDriver):
            def run(self, *given):  # type: ignore[no-untyped-def]
                began = time.monotonic()
                made = super().run(*given)
                times.append(time.monotonic() - began)  # noqa: B023
                return made

        assert prepared.opened.checkpoint.source is not None
        publish_plan(prepared.plan, prepared.opened.checkpoint.source, out, driver=Timed(pool, division))
        best = min(best, times[0])
    shutil.rmtree(out)
    return best


def costs(source: Path, division: Division, **options: str) -> tuple[int, int]:
    """Tasks, and bytes read and written."""
    found = predict(prepare(source, **options).plan, None, division)
    return len(found.tasks), found.read + found.written


def main(folder: Path) -> None:
    import ray

    tiny = checkpoint(folder / "tiny", 3, 500, 256, 300)
    one = checkpoint(folder / "one", 3, 32_000, 1024, 8192)
    two = checkpoint(folder / "two", 2, 48_000, 1536, 6144)
    ray.init(num_cpus=1, object_store_memory=80 * MIB, log_to_driver=False)
    rows = []
    with RayPool() as pool:
        # The worker is started, and porter imported there.
        seconds(tiny, folder / "out", pool, EACH, to="litgpt")
        count, _ = costs(tiny, EACH, to="litgpt")
        task = seconds(tiny, folder / "out", pool, EACH, to="litgpt") / count
        few, nbytes = costs(one, PARTS, to="litgpt")
        wall = seconds(one, folder / "out", pool, PARTS, to="litgpt")
        rate = nbytes / (wall - few * task)
        print(f"fitted: {task:.3f} s a task, {rate / 1e6:.0f} MB/s read or written, from", flush=True)
        print(
            f"  {count} tasks of next to nothing; {few} tasks, {nbytes / 1e9:.2f} GB: {wall:.2f} s",
            flush=True,
        )
        assumed = Assumed(1, int(rate), int(rate), task)
        for source, division, options in (
            (two, PARTS, {"to": "litgpt"}),
            (two, PARTS, {"to": "hf", "max_shard_size": "150MB"}),
            (one, PARTS, {"to": "litgpt", "tied": "omit"}),
            (two, PARTS, {"to": "keras"}),
        ):
            plan = prepare(source, **options).plan  # type: ignore[arg-type]
            told = predict(plan, assumed, division)
            wall = seconds(source, folder / "out", pool, division, **options)
            moved, predicted = (told.read + told.written) / 1e9, told.loads[0].seconds
            words = " ".join(options.values())
            rows.append((source.name, words, len(told.tasks), moved, predicted, wall))
    ray.shutdown()
    for name, words, count, moved, predicted, wall in rows:
        off = wall / predicted - 1
        print(f"{name} {words}: {count} tasks, {moved:.2f} GB, {predicted:.2f} s, {wall:.2f} s, {off:+.0%}")


if __name__ == "__main__":
    print(f"porter {porter.__version__}")
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as place:
        main(Path(place))
