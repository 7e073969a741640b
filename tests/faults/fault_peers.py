"""The same faults over the tools that do a like work: one tool a process, since each is loaded once and then
forked.

    python tests/faults/fault_peers.py NAME     one row, as JSON

Each is used as its documentation says: to save, or to convert, to a name where nothing is, and to one where
an older output stands. A run without a fault is made twice first and must come to the same bytes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ |= {
    "KERAS_BACKEND": "torch",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

import fault_oracle as oracle  # noqa: E402
import traced  # noqa: E402
from fault_kinds import ANSWERS, at, some  # noqa: E402

# What changes a file or a name; what only opens one is left out, so that each tool gets faults where it
# writes.
WRITING = traced.CHANGING - {"ioctl", "flock", "open", "openat"}

# `save(seed, out)` for one of two models that were made before; `out` is a directory or a file.
Save = Callable[[int, Path], None]


def porter(base: Path) -> tuple[str, Save]:
    sources = {seed: oracle.write_checkpoint(base / f"model-{seed}" / "source", seed) for seed in (1, 2)}
    import porter as package

    def save(seed: int, out: Path) -> None:
        package.convert(sources[seed], out, to="litgpt", force=True)

    return f"porter {package.__version__}, convert", save


def safetensors(base: Path) -> tuple[str, Save]:
    from safetensors.numpy import save_file

    models = {seed: oracle.tensors(seed) for seed in (1, 2)}
    return f"safetensors {version('safetensors')}, save_file", lambda seed, out: save_file(models[seed], out)


def transformers(base: Path) -> tuple[str, Save]:
    from transformers import AutoModelForCausalLM

    models = {
        seed: AutoModelForCausalLM.from_pretrained(oracle.write_checkpoint(base / f"source-{seed}", seed))
        for seed in (1, 2)
    }

    def save(seed: int, out: Path) -> None:
        models[seed].save_pretrained(out, max_shard_size="100KB")

    return f"transformers {version('transformers')}, save_pretrained", save


def litgpt(base: Path) -> tuple[str, Save]:
    from tests.tiny_litgpt import converter

    script = converter(
        layers=oracle.LAYERS,
        width=oracle.DIM,
        heads=oracle.HEADS,
        groups=oracle.GROUPS,
        head_size=oracle.SIZE,
        hidden=oracle.HIDDEN,
        vocabulary=oracle.VOCAB,
    )
    sources = {}
    for seed in (1, 2):
        sources[seed] = oracle.write_checkpoint(base / f"source-{seed}", seed)
        for name in ("config.json", "generation_config.json"):
            (sources[seed] / name).unlink()

    def save(seed: int, out: Path) -> None:
        # It writes into the checkpoint itself.
        shutil.copytree(sources[seed], out, dirs_exist_ok=True)
        script.convert_hf_checkpoint(out, model_name="tiny-gemma")

    return f"litgpt {version('litgpt')}, convert_hf_checkpoint", save


def keras_hub(base: Path) -> tuple[str, Save]:
    import keras
    from keras_hub.models import GemmaBackbone

    models = {}
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        models[seed] = GemmaBackbone(
            vocabulary_size=oracle.VOCAB,
            num_layers=oracle.LAYERS,
            num_query_heads=oracle.HEADS,
            num_key_value_heads=oracle.GROUPS,
            hidden_dim=oracle.DIM,
            intermediate_dim=oracle.HIDDEN * 2,
            head_dim=oracle.SIZE,
        )
    return (
        f"keras-hub {version('keras-hub')}, export_to_transformers",
        lambda seed, out: models[seed].export_to_transformers(str(out)),
    )


TOOLS = {
    "porter": porter,
    "safetensors": safetensors,
    "transformers": transformers,
    "litgpt": litgpt,
    "keras-hub": keras_hub,
}


class _Work:
    def __init__(self, save: Save, out: Path) -> None:
        self.save, self.out = save, out

    def ready(self) -> None:
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)

    def __call__(self) -> int:
        try:
            self.save(1, self.out)
        except Exception:
            return 1
        return 0


def strike(name: str, base: Path, most: int) -> dict[str, Any]:
    title, save = TOOLS[name](base)
    place = base / "place"
    work = _Work(save, place / "out")
    trees = {}
    for seed, word in ((1, "the new output"), (2, "the old output")):
        for number in range(2):
            _cleared(place)
            save(seed, place / "out")
            assert trees.setdefault(word, oracle.tree(place / "out")) == oracle.tree(place / "out"), number
        shutil.move(place / "out", base / word)
    found: Counter[str] = Counter()
    untrue, worst = 0, 0.0
    for over in (True, False):

        def set_up(over: bool = over) -> None:
            _cleared(place)
            if over:
                copy = shutil.copytree if (base / "the old output").is_dir() else shutil.copyfile
                copy(base / "the old output", place / "out")

        set_up()
        calls = traced.run(work, lambda call: None).calls
        wanted = [number for number, call in enumerate(calls) if call in WRITING]
        for number in some(wanted, most):
            answers = [
                answer for answer in (errno.ENOSPC, errno.EIO) if answer in ANSWERS.get(calls[number], ())
            ]
            for action in (traced.KILL, *answers):
                set_up()
                ended = traced.run(work, at(number, action, calls[number]))
                tree = oracle.tree(place / "out")
                states = {
                    trees["the old output"]: "the old output",
                    trees["the new output"]: "the new output",
                }
                state = states.get(tree, "a part or a mixture" if tree else "nothing")
                if over and state == "nothing":
                    state = "the old output gone"
                found[state] += 1
                untrue += ended.code == 0 and state != "the new output"
                worst = max(worst, ended.seconds)
    return {"title": title, "found": dict(found), "untrue": untrue, "seconds": worst}


def _cleared(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()


def main() -> None:
    base = Path(tempfile.mkdtemp(prefix="porter-faults-"))
    try:
        most = int(sys.argv[2]) if len(sys.argv) > 2 else 30
        print(json.dumps(strike(sys.argv[1], base, most)))
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
