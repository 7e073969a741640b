"""`porter.load_state_dict`: another dialect, no file written, no memory taken, the file left alone."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import porter

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def litgpt(tiny_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "litgpt"
    porter.convert(tiny_gemma, out, to="litgpt")
    return out


def hf_logits(path: Path, ids: torch.Tensor) -> torch.Tensor:
    from transformers import GemmaForCausalLM

    with torch.inference_mode():
        return GemmaForCausalLM.from_pretrained(path).eval()(ids).logits


IDS = torch.arange(4, 34)[None]


def mapped(tensor: torch.Tensor) -> str:
    """The file whose mapping holds a tensor's memory; empty for memory of the process's own."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, last = line.split(maxsplit=5)
        start, end = (int(part, 16) for part in span.split("-"))
        if start <= tensor.data_ptr() < end and tensor.data_ptr() + tensor.nbytes <= end:
            return last if last.startswith("/") else ""
    return ""


def test_what_is_renamed_lies_in_the_file_and_what_is_fused_does_not(tiny_gemma: Path) -> None:
    state = porter.load_state_dict(tiny_gemma, to="litgpt")
    assert len(state) == 24
    for name, tensor in state.items():
        assert mapped(tensor).endswith(".safetensors") == ("attn.qkv" not in name), name
    assert state["lm_head.weight"].data_ptr() == state["transformer.wte.weight"].data_ptr()


def test_what_is_split_lies_in_the_file(litgpt: Path) -> None:
    state = porter.load_state_dict(litgpt, to="hf")
    assert {mapped(tensor) for tensor in state.values()} == {str(litgpt / "lit_model.safetensors")}
    q, k = (state[f"model.layers.1.self_attn.{name}_proj.weight"] for name in "qk")
    assert k.data_ptr() == q.data_ptr() + q.nbytes, "one after the other in the fused tensor"
    assert {tensor.untyped_storage().data_ptr() for tensor in state.values()} == {
        q.untyped_storage().data_ptr()
    }


def test_it_is_what_convert_writes(tiny_gemma: Path, litgpt: Path) -> None:
    from safetensors.torch import load_file

    written = load_file(litgpt / "lit_model.safetensors")
    state = porter.load_state_dict(tiny_gemma, to="litgpt")
    assert state.keys() == written.keys()
    assert all(torch.equal(state[name], written[name]) for name in written)
    back = porter.load_state_dict(litgpt, to="hf")
    own = porter.load_state_dict(tiny_gemma)
    assert back.keys() == own.keys() and all(torch.equal(back[name], own[name]) for name in own)


def test_into_a_stock_litgpt_built_on_meta(tiny_gemma: Path, litgpt: Path) -> None:
    from litgpt.config import Config
    from litgpt.model import GPT

    with torch.device("meta"):
        model = GPT(Config.from_file(litgpt / "model_config.yaml"))
    state = porter.load_state_dict(tiny_gemma, to="litgpt")
    model.load_state_dict(state, strict=True, assign=True)
    model.cos, model.sin = model.rope_cache(device="cpu")
    assert model.transformer.wte.weight.data_ptr() == state["transformer.wte.weight"].data_ptr()
    expected = hf_logits(tiny_gemma, IDS)
    with torch.inference_mode():
        found = model.eval()(IDS)
    assert (found - expected).abs().max() / expected.abs().max() <= 1e-6


def test_into_transformers_built_on_meta(tiny_gemma: Path, litgpt: Path) -> None:
    from transformers import GemmaConfig, GemmaForCausalLM

    config = GemmaConfig.from_pretrained(tiny_gemma)
    with torch.device("meta"):
        model = GemmaForCausalLM(config)
    model.load_state_dict(porter.load_state_dict(litgpt, to="hf"), strict=True, assign=True)
    # Buffers that are in no checkpoint are still on meta: taken from a small model, which has the same.
    small = GemmaForCausalLM(GemmaConfig(**config.to_diff_dict() | {"num_hidden_layers": 1}))
    model.model.rotary_emb = small.model.rotary_emb
    model.model.embed_tokens.embed_scale = small.model.embed_tokens.embed_scale
    with torch.inference_mode():
        assert torch.equal(model.eval()(IDS).logits, hf_logits(tiny_gemma, IDS))


def test_transformers_takes_it_by_its_own_way_in(tiny_gemma: Path, litgpt: Path) -> None:
    from transformers import GemmaConfig, GemmaForCausalLM

    state = porter.load_state_dict(litgpt, to="hf")
    config = GemmaConfig.from_pretrained(tiny_gemma)
    model = GemmaForCausalLM.from_pretrained(None, config=config, state_dict=state)
    assert mapped(model.model.embed_tokens.weight) == str(litgpt / "lit_model.safetensors")
    with torch.inference_mode():
        assert torch.equal(model.eval()(IDS).logits, hf_logits(tiny_gemma, IDS))


def test_writing_to_a_tensor_leaves_the_file_as_it_was(tiny_gemma: Path) -> None:
    files = sorted(tiny_gemma.glob("*.safetensors"))
    before = [path.read_bytes() for path in files]
    state = porter.load_state_dict(tiny_gemma, to="litgpt")
    for tensor in state.values():
        tensor.fill_(7)
    assert float(state["transformer.ln_f.weight"][0]) == 7
    assert [path.read_bytes() for path in files] == before
    assert not torch.equal(
        porter.load_state_dict(tiny_gemma, to="litgpt")["lm_head.weight"], state["lm_head.weight"]
    )


def test_dtype_and_device(tiny_gemma: Path) -> None:
    plain = porter.load_state_dict(tiny_gemma, to="litgpt")
    half = porter.load_state_dict(tiny_gemma, to="litgpt", dtype="bfloat16")
    for name, tensor in plain.items():
        assert half[name].dtype == torch.bfloat16
        assert torch.equal(half[name], tensor.to(torch.bfloat16)), "rounded as torch rounds"
    assert half["lm_head.weight"].data_ptr() == half["transformer.wte.weight"].data_ptr()
    for device in ("meta", torch.device("meta")):
        shapes = porter.load_state_dict(tiny_gemma, to="litgpt", device=device)
        assert {name: tensor.shape for name, tensor in shapes.items()} == {
            name: tensor.shape for name, tensor in plain.items()
        }
        assert {tensor.device.type for tensor in shapes.values()} == {"meta"}
    with pytest.raises(porter.PorterError, match="bfloat8"):
        porter.load_state_dict(tiny_gemma, to="litgpt", dtype="bfloat8")


def test_a_torch_file_is_mapped_too(tiny_gemma: Path, tmp_path: Path) -> None:
    porter.convert(tiny_gemma, tmp_path / "pth", to="litgpt", container="pth")
    state = porter.load_state_dict(tmp_path / "pth", to="hf")
    assert {Path(mapped(tensor)).name for tensor in state.values()} == {"lit_model.pth"}
    own = porter.load_state_dict(tiny_gemma)
    assert all(torch.equal(state[name], own[name]) for name in own)


def test_a_gpt_from_what_was_written(tiny_gemma: Path, litgpt: Path, tmp_path: Path) -> None:
    from porter.models import GPT

    expected = hf_logits(tiny_gemma, IDS)
    porter.convert(tiny_gemma, tmp_path / "pth", to="litgpt", container="pth")
    porter.convert(tiny_gemma, tmp_path / "less", to="litgpt", tied="omit")
    for directory, tied in ((litgpt, False), (tmp_path / "pth", True), (tmp_path / "less", True)):
        model = GPT.from_checkpoint(directory)
        assert (model.lm_head.weight is model.transformer.wte.weight) == tied, "as they are stored"
        with torch.inference_mode():
            found = model(IDS)
        assert (found - expected).abs().max() / expected.abs().max() <= 1e-6, directory


# 400 MB of embedding, whose head is tied: a copy of either would show.
_MEASURE = """
import re
from pathlib import Path
import torch
import porter
def kib(word): return int(re.search(word + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
porter.load_state_dict(sys.argv[2], to="litgpt")
before, most = kib("VmRSS"), kib("VmHWM")
state = porter.load_state_dict(sys.argv[1], to="litgpt")
loaded = {"rss": kib("VmRSS") - before, "most": kib("VmHWM") - most}
read = float(state["transformer.wte.weight"].sum())
emit(loaded | {"anonymous_after_reading": kib("RssAnon") / 1024, "read": kib("VmRSS") - before, "sum": read})
"""


def test_hundreds_of_megabytes_take_no_memory(
    python: Any, full_size: Any, tiny_gemma: Path, tmp_path: Path
) -> None:
    sizes = {"hidden_size": 2048, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 16}
    config = sizes | {"num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": 100_000}
    layer = {
        "self_attn.q_proj": (64, 2048),
        "self_attn.k_proj": (16, 2048),
        "self_attn.v_proj": (16, 2048),
        "self_attn.o_proj": (2048, 64),
        "mlp.gate_proj": (64, 2048),
        "mlp.up_proj": (64, 2048),
        "mlp.down_proj": (2048, 64),
        "input_layernorm": (2048,),
        "post_attention_layernorm": (2048,),
    }
    shapes = {"model.embed_tokens.weight": (100_000, 2048), "model.norm.weight": (2048,)}
    shapes |= {f"model.layers.0.{name}.weight": shape for name, shape in layer.items()}
    rest = {"model_type": "gemma", "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6}
    folder = full_size(tmp_path / "large", config | rest, shapes)
    assert (folder / "model.safetensors").stat().st_size > 400_000_000
    found = python(_MEASURE, folder, tiny_gemma)
    assert found["rss"] < 20_000 and found["most"] < 20_000, f"KiB: {found}"
    assert found["read"] > 390_000, "reading the embedding maps its pages: the figure can grow"


@pytest.mark.real
def test_a_gguf(real_gguf: Path) -> None:
    state = porter.load_state_dict(real_gguf, to="litgpt", dtype="float32")
    assert len(state) == 201 and {tensor.dtype for tensor in state.values()} == {torch.float32}
    import numpy as np
    from gguf import GGMLQuantizationType, quants

    from porter.containers.gguf.gguf_header import read_header

    wanted = {"output_norm.weight": ("transformer.ln_f.weight", 1.0), "blk.3.attn_output.weight":
              ("transformer.h.3.attn.proj.weight", 0.0)}  # fmt: skip
    for tensor in read_header(real_gguf, real_gguf.name).tensors:
        if tensor.name in wanted:
            name, added = wanted[tensor.name]
            with real_gguf.open("rb") as stream:
                stream.seek(tensor.offset)
                raw = stream.read(tensor.nbytes)
            rows = np.frombuffer(raw, np.uint8).reshape(-1, tensor.dtype.nbytes(tensor.shape[-1]))
            values = quants.dequantize(rows, GGMLQuantizationType[tensor.dtype.name]).reshape(tensor.shape)
            assert torch.equal(state[name], torch.from_numpy(values - np.float32(added))), tensor.name
    with pytest.raises(porter.PorterError, match="quantised"):
        porter.load_state_dict(real_gguf, to="litgpt")


def test_the_older_name_of_the_dialect_still_works(tiny_gemma):
    with pytest.warns(DeprecationWarning, match="called to="):
        old = porter.load_state_dict(tiny_gemma, as_="litgpt")
    assert list(old) == list(porter.load_state_dict(tiny_gemma, to="litgpt"))


def test_saved_it_is_torchs_own_kind_of_dict_with_its_ties_and_without_the_file(
    tiny_gemma: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    state = porter.load_state_dict(tiny_gemma, to="hf")
    torch.save(state, tmp_path / "state.pth")
    saved = torch.load(tmp_path / "state.pth", weights_only=True)
    assert type(saved) is OrderedDict and list(saved) == list(state)
    files = sorted(tiny_gemma.glob("*.safetensors"))
    stored = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert all(torch.equal(saved[name], tensor) for name, tensor in stored.items())
    # Tied under both names, one storage: neither the head twice, nor the file that all were views of.
    assert saved["lm_head.weight"].data_ptr() == saved["model.embed_tokens.weight"].data_ptr()
    nbytes = sum(tensor.nbytes for tensor in stored.values())
    assert nbytes <= (tmp_path / "state.pth").stat().st_size < nbytes + 40_000


def test_a_tied_source_whose_two_differ_is_refused_whatever_it_becomes(litgpt: Path, tmp_path: Path) -> None:
    """Loaded into a model that ties them, the head would take the place of the embedding."""
    from safetensors.torch import load_file, save_file

    apart = tmp_path / "apart"
    shutil.copytree(litgpt, apart)
    weights = load_file(apart / "lit_model.safetensors")
    weights["lm_head.weight"] += 1
    save_file(weights, apart / "lit_model.safetensors")
    for to in (None, "hf", "litgpt", "keras"):
        with pytest.raises(porter.PorterError, match="have to be equal"):
            porter.load_state_dict(apart, to=to)
        same = porter.load_state_dict(litgpt, to=to)
        if to != "keras":
            head = same["lm_head.weight"]
            embedding = same["model.embed_tokens.weight" if to == "hf" else "transformer.wte.weight"]
            assert head.data_ptr() == embedding.data_ptr()
    untied = porter.load_state_dict(apart, to="hf", tied="untie")
    assert torch.equal(untied["lm_head.weight"], untied["model.embed_tokens.weight"] + 1)
