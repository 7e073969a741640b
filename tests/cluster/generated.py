"""A Gemma 3 27B whose bytes are made when they are read: word i of a file is i times a constant.

python generated.py compare TARGET SHARD_BYTES      plans, runs some tasks, holds them against NumPy
python generated.py peak TARGET SHARD_BYTES         plans, runs some tasks, tells what memory they took
"""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import porter
from porter.errors import MalformedError
from porter.execution.cluster.divide import divide, framed
from porter.execution.cluster.tasks import Job, run_task
from porter.sources.base import FileInfo
from porter.sources.in_memory import MemoryFile

FACTOR = np.uint64(0x9E3779B97F4A7C15)
CONFIG = {
    "model_type": "gemma3_text",
    "architectures": ["Gemma3ForCausalLM"],
    "hidden_size": 5376,
    "intermediate_size": 21504,
    "num_hidden_layers": 62,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "vocab_size": 262208,
    "query_pre_attn_scalar": 168,
    "sliding_window": 1024,
    "sliding_window_pattern": 6,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "rms_norm_eps": 1e-06,
    "max_position_embeddings": 131072,
    "hidden_activation": "gelu_pytorch_tanh",
    "torch_dtype": "bfloat16",
}


def shapes():
    found = {"model.embed_tokens.weight": (262208, 5376), "model.norm.weight": (5376,)}
    for layer in range(62):
        own = {
            "self_attn.q_proj": (4096, 5376),
            "self_attn.k_proj": (2048, 5376),
            "self_attn.v_proj": (2048, 5376),
            "self_attn.o_proj": (5376, 4096),
            "self_attn.q_norm": (128,),
            "self_attn.k_norm": (128,),
            "mlp.gate_proj": (21504, 5376),
            "mlp.up_proj": (21504, 5376),
            "mlp.down_proj": (5376, 21504),
        }
        norms = ("input", "post_attention", "pre_feedforward", "post_feedforward")
        own |= {f"{norm}_layernorm": (5376,) for norm in norms}
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in own.items()}
    return found


def words(start, stop):
    """Bytes `start` to `stop` of any file, made by the rule."""
    first = start // 8
    made = np.arange(first, -(-stop // 8), dtype=np.uint64) * FACTOR
    return made.view(np.uint8)[start - 8 * first : stop - 8 * first]


class GeneratedFile:
    request = 4 << 20

    def __init__(self, name, header, size):
        self.name, self.size, self.header = name, size, header

    def read(self, views, offset):
        for view in views:
            end = offset + len(view)
            if end > self.size:
                raise MalformedError(f"{self.name} ends too early")
            for start in range(offset, end, 1 << 20):
                stop = min(start + (1 << 20), end)
                view[start - offset : stop - offset] = words(start, stop).data
            known = self.header[offset:end]
            view[: len(known)] = known
            offset = end

    def close(self):
        pass


class Generated:
    near, label, version = False, "gemma-3-27b", "generated"

    def __init__(self, shard_bytes):
        self.places, self.headers, self.sizes = {}, {}, {}
        lots, held = [[]], 0
        for name, shape in shapes().items():
            nbytes = 2 * int(np.prod(shape))
            if lots[-1] and held + nbytes > shard_bytes:
                lots.append([])
                held = 0
            lots[-1].append((name, shape, nbytes))
            held += nbytes
        for number, lot in enumerate(lots, 1):
            self._file(f"model-{number:05}-of-{len(lots):05}.safetensors", lot)
        weight_map = {name: file for name, (file, _) in self.places.items()}
        self.small = {
            "config.json": json.dumps(CONFIG).encode(),
            "model.safetensors.index.json": json.dumps({"metadata": {}, "weight_map": weight_map}).encode(),
        }

    def _file(self, file, lot):
        table, at = {"__metadata__": {"format": "pt"}}, 0
        for name, shape, nbytes in lot:
            table[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + nbytes]}
            at += nbytes
        text = json.dumps(table).encode()
        text += b" " * (-len(text) % 8)
        self.headers[file] = len(text).to_bytes(8, "little") + text
        start = len(self.headers[file])
        self.sizes[file] = start + at
        for name, _, _ in lot:
            self.places[name] = file, start + table[name]["data_offsets"][0]

    def files(self):
        sizes = {**self.sizes, **{name: len(content) for name, content in self.small.items()}}
        return {name: FileInfo(size, None, "generated") for name, size in sizes.items()}

    def open(self, file):
        if file in self.small:
            return MemoryFile(file, self.small[file])
        if file not in self.sizes:
            raise MalformedError(f"{file} is missing")
        return GeneratedFile(file, self.headers[file], self.sizes[file])

    def check(self, files):
        pass

    def tensor(self, name):
        """All of a tensor, by the rule and not by porter."""
        (_, start), shape = self.places[name], shapes()[name]
        return words(start, start + 2 * int(np.prod(shape))).view(np.uint16).reshape(shape)


class Kept:
    """A place that keeps the last part."""

    def write(self, number, start, data, crc):
        self.start, self.data = start, data
        return ""


def expected(source, target, name):
    """The target's tensor, written out by hand."""
    if target == "litgpt":
        layer = name.split(".")[2] if name.startswith("transformer.h.") else None
        if layer is None:
            return source.tensor("model.embed_tokens.weight")
        own = f"model.layers.{layer}."
        if "attn.qkv" in name:
            return np.concatenate([source.tensor(f"{own}self_attn.{x}_proj.weight") for x in "qkv"])
        return source.tensor(f"{own}mlp.gate_proj.weight")
    if target == "hf":
        return source.tensor(name)
    # KerasHub's kernels have the input dim first.
    layer = name.split("/")[1].rpartition("_")[2]
    return source.tensor(f"model.layers.{layer}.mlp.gate_proj.weight").T


def prepared(target, shard_bytes):
    source = Generated(shard_bytes)
    options = {"max_shard_size": shard_bytes} if target == "hf" else {}
    plan = porter.plan(source, to=target, **options)
    return source, plan, Job("generated", porter.__version__, source, dict(plan.source_sizes))


def run(job, plan, task):
    """One task: its record, and the bytes of its part."""
    file, place = next(file for file in plan.files if file.name == task.file), Kept()
    (whole,) = framed(file, [task], {})
    return run_task(job, replace(whole, place=place)), place


def compare(target, shard_bytes):
    """Some tensors of each kind: what their first parts hold, against NumPy's."""
    source, plan, job = prepared(target, shard_bytes)
    tasks = divide(plan)
    compared = []
    for name in WANTED[target]:
        tensor = plan.target_by_name[name]
        whole = expected(source, target, name).tobytes()
        assert len(whole) == tensor.nbytes, (name, len(whole), tensor.nbytes)
        end = tensor.offset + tensor.nbytes
        own = [t for t in tasks if t.file == tensor.file and t.start < end and t.end > tensor.offset]
        for task in own[:2]:
            _, place = run(job, plan, task)
            low, high = max(task.start, tensor.offset), min(task.end, end)
            made = bytes(place.data[low - task.start : high - task.start])
            assert made == whole[low - tensor.offset : high - tensor.offset], (name, task.number)
            compared.append(high - low)
    return {
        "files": [file.size for file in plan.files],
        "tasks": len(tasks),
        "written": sum(task.nbytes for task in tasks),
        "compared": compared,
    }


def peak(target, shard_bytes):
    """The most memory that a process has held which ran a dozen tasks from all over the plan, in KiB."""
    _, plan, job = prepared(target, shard_bytes)
    tasks = divide(plan)
    for task in tasks[:: len(tasks) // 12]:
        run(job, plan, task)
    # Not what `getrusage` says: that begins with the memory of the process that started this one.
    held = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    return {"peak": held, "largest": max(file.size for file in plan.files)}


WANTED = {
    "litgpt": ("lm_head.weight", "transformer.h.5.attn.qkv.weight", "transformer.h.7.mlp.fc_1.weight"),
    "keras": ("layers/gemma3_decoder_block_7/gating_ffw/vars/0",),
    "hf": ("model.layers.9.self_attn.q_proj.weight",),
}

if __name__ == "__main__":
    work, target, shard_bytes = sys.argv[1:]
    print(json.dumps({"compare": compare, "peak": peak}[work](target, int(shard_bytes))))
