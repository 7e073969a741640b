"""One small Gemma, sound, in every form that porter reads: what hostile inputs are made from.

Every size differs from every other. Where porter itself makes a form from another, that is only to have
something to damage: nothing here says whether what it makes is right.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import porter

D, F, H, K, HEAD, VOCAB, LAYERS = 12, 7, 4, 2, 8, 40, 2

CONFIG = {
    "model_type": "gemma",
    "architectures": ["GemmaForCausalLM"],
    "vocab_size": VOCAB,
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": H,
    "num_key_value_heads": K,
    "head_dim": HEAD,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_activation": "gelu_pytorch_tanh",
    "torch_dtype": "float32",
}

TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "t", "1", *(f"t{at}" for at in range(VOCAB - 6))]

TOKENIZER = {
    "version": "1.0",
    "added_tokens": [{"id": 2, "content": "<bos>", "special": True}],
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
    },
    "model": {"type": "BPE", "vocab": {token: at for at, token in enumerate(TOKENS)}, "merges": [["t", "1"]]},
}
TOKENIZER_CONFIG = {
    "tokenizer_class": "GemmaTokenizer",
    "bos_token": "<bos>",
    "added_tokens_decoder": {"2": {"content": "<bos>", "special": True}},
}

TABLE = """extends = "gemma/hf"
family = "gemma"
dialect = "mine"
title = "Mine"

[config.fields]
d_ff = { field = "intermediate_size" }
norm_eps = { field = "rms_norm_eps", default = 1e-6 }

[rules]
"mine.norm.weight" = { ours = "norm", add = -1 }
"model.norm.weight" = false
"""


def arrays():
    random = np.random.default_rng(3)
    shapes = {"model.embed_tokens.weight": (VOCAB, D), "model.norm.weight": (D,)}
    for layer in range(LAYERS):
        shapes |= {
            f"model.layers.{layer}.{name}.weight": shape
            for name, shape in {
                "input_layernorm": (D,),
                "post_attention_layernorm": (D,),
                "self_attn.q_proj": (H * HEAD, D),
                "self_attn.k_proj": (K * HEAD, D),
                "self_attn.v_proj": (K * HEAD, D),
                "self_attn.o_proj": (D, H * HEAD),
                "mlp.gate_proj": (F, D),
                "mlp.up_proj": (F, D),
                "mlp.down_proj": (D, F),
            }.items()
        }
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def _hf(folder: Path) -> None:
    save_file(arrays(), folder / "model.safetensors", metadata={"format": "pt"})


def _sharded(folder: Path) -> None:
    every = arrays()
    names = sorted(every)
    parts = {1: names[::2], 2: names[1::2]}
    weight_map = {}
    for number, part in parts.items():
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: every[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")


def _gguf(folder: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(folder / "model.gguf", "gemma")
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(D)
    writer.add_feed_forward_length(F)
    writer.add_head_count(H)
    writer.add_head_count_kv(K)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([-float(at) for at in range(VOCAB)])
    kinds = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.UNKNOWN]
    writer.add_token_types(kinds + [gguf.TokenType.NORMAL] * (VOCAB - 4))
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "model.layers": "blk",
    }
    for name, array in arrays().items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_all(folder: Path) -> dict[str, Path]:
    """The seeds' directories by name, in `folder`."""
    made = {}
    for name, make in {"hf": _hf, "sharded": _sharded, "gguf": _gguf}.items():
        made[name] = folder / name
        made[name].mkdir(parents=True)
        make(made[name])
        if name != "gguf":
            (made[name] / "config.json").write_text(json.dumps(CONFIG), "utf-8")
            (made[name] / "tokenizer.json").write_text(json.dumps(TOKENIZER), "utf-8")
            (made[name] / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG), "utf-8")
    for name, options in {
        "litgpt": {"to": "litgpt"},
        "pth": {"to": "litgpt", "container": "pth"},
        "keras": {"to": "keras"},
        "flax": {"to": "flax"},
    }.items():
        # From the GGUF, whose tokenizer becomes a SentencePiece model.
        made[name] = folder / name
        porter.convert(made["gguf"], made[name], **options)
        (made[name] / "porter-receipt.json").unlink()
    made["output"] = folder / "output"
    porter.convert(made["hf"], made["output"], to="litgpt")
    made["sides"] = folder / "sides"
    shutil.copytree(made["hf"], made["sides"])
    _sides(made["sides"], made["litgpt"])
    made["bin"] = folder / "bin"
    shutil.copytree(made["hf"], made["bin"])
    _bin(made["bin"])
    made["ocdbt"] = folder / "ocdbt"
    _ocdbt(made["flax"], made["ocdbt"])
    made["archive"] = folder / "archive"
    made["archive"].mkdir()
    _archive(made["keras"], made["archive"] / "model.keras")
    made["table"] = folder / "table"
    shutil.copytree(made["hf"], made["table"])
    (made["table"] / "mine.toml").write_text(TABLE, "utf-8")
    return made


def _sides(folder: Path, litgpt: Path) -> None:
    """Every small file that a checkpoint may hold beside its weights, config and tokenizer."""
    vocabulary = {token: at for at, token in enumerate(TOKENS)}
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 2, "eos_token_id": [1]}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": {"content": "<bos>"}}))
    (folder / "added_tokens.json").write_text(json.dumps({"<bos>": 2}))
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\nt 1\n")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/tools.jinja").write_text("{{ tools }}")
    shutil.copy(litgpt / "tokenizer.model", folder / "tokenizer.model")


def _bin(folder: Path) -> None:
    """torch's files in shards, as Hugging Face wrote them, by torch itself."""
    import torch

    every = {name: torch.from_numpy(array) for name, array in arrays().items()}
    (folder / "model.safetensors").unlink()
    names = sorted(every)
    weight_map = {}
    for number, part in {1: names[::2], 2: names[1::2]}.items():
        file = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({name: every[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def _ocdbt(plain: Path, folder: Path) -> None:
    """The same tree in tensorstore's database, one of its arrays as zarr 3."""
    import tensorstore

    folder.mkdir()
    for path in plain.iterdir():
        if path.is_file():
            shutil.copy(path, folder / path.name)
    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}}
    for number, path in enumerate(sorted(plain.rglob(".zarray"))):
        name = path.parent.relative_to(plain).as_posix()
        there = {"driver": "file", "path": f"{path.parent}/"}
        array = tensorstore.open({"driver": "zarr", "kvstore": there}).result().read().result()
        spec = {"driver": "zarr" if number else "zarr3", "kvstore": {**store, "path": f"{name}/"}}
        opened = tensorstore.open(spec, create=True, dtype=array.dtype.name, shape=array.shape).result()
        opened.write(array).result()


def _archive(preset: Path, path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.write(preset / name, name)
